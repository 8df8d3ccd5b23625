"""A Docker engine that is none: answers over a unix socket, as slowly and wrongly as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

Answer = tuple[int, object]
"""Status, and what becomes JSON; bytes are sent as they are."""
Handler = Callable[[str, str], Awaitable[Answer]]
"""Takes method and path with its query, without the version."""


@dataclass(slots=True)
class FakeDocker:
    """Its address, who answers, and what was asked."""

    address: str
    handler: Handler
    asked: list[str] = field(default_factory=list)
    has_events: bool = False
    """Whether it has an event stream, on which nothing comes; otherwise each one ends at once."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_asked(self, what: str, seconds: float = 5, *, times: int = 1) -> None:
        """Return when so many requests with these words have come."""
        async with asyncio.timeout(seconds):
            while sum(what in each for each in self.asked) < times:
                self._news.clear()
                await self._news.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split()
                length = 0
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                await reader.readexactly(length)
                path = "/" + target.split("/", 2)[2]
                self.asked.append(f"{method} {path}")
                self._news.set()
                if self.has_events and path.startswith("/events"):
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    await reader.read()
                    return
                status, told = await self.handler(method, path)
                body = told if isinstance(told, bytes) else json.dumps(told).encode()
                head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def fake_docker(handler: Handler) -> AsyncIterator[FakeDocker]:
    """Serve until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="swf-") as folder:
        socket = Path(folder) / "s"
        docker = FakeDocker(f"unix://{socket}", handler)
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(asyncio.ensure_future(docker.serve(reader, writer)))

        server = await asyncio.start_unix_server(connected, socket)
        try:
            yield docker
        finally:
            server.close()
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await server.wait_closed()
