"""Questions to a container engine that are asked behind its executor's back: plain HTTP over a unix socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

MAX_ANSWER_BYTES = 256 << 20
SECONDS = 60.0


class EngineApi:
    """Docker's API, as Docker and Podman serve it."""

    def __init__(self, socket: str) -> None:
        """`socket` is a path."""
        self._socket = socket

    async def raw(self, method: str, path: str) -> tuple[int, bytes]:
        """Status and body. Raises OSError where nobody listens."""
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                head = f"{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                writer.write(head.encode())
                await writer.drain()
                answer = await reader.read(-1)
            finally:
                writer.close()
                await writer.wait_closed()
        top, _, body = answer.partition(b"\r\n\r\n")
        status = int(top.split(None, 2)[1])
        return status, _joined(body) if b"chunked" in top.lower() else body

    async def ask(self, method: str, path: str) -> Any:
        """The decoded answer; None for 404. Raises AssertionError for another error."""
        status, body = await self.raw(method, path)
        if status == 404:
            return None
        assert status < 400, f"{method} {path}: {status} {body.decode(errors='replace').strip()}"
        return json.loads(body) if body.strip() else None


def filters(**values: list[str]) -> str:
    """The query that lists what has these labels, names or states."""
    return f"filters={quote(json.dumps(values))}"


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Stream and payload of each frame of an attached or read output."""
    found = []
    while len(data) >= 8:
        size = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def _joined(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)
