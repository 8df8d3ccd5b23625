"""Answers of the Podman service that take long or never end: events, logs, health checks. No thread waits for them.

A small HTTP/1.1 reader on a unix socket. What is read is bounded: the head by `MAX_HEAD`, a body by who asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

API_PREFIX: Final = "/v4.0.0/libpod"
"""The lowest version that speaks all that is asked here; newer services speak it too."""
MAX_HEAD: Final = 64 * 1024
MAX_ERROR: Final = 64 * 1024
CONNECT_SECONDS: Final = 10.0


class StreamError(OSError):
    """The service ended the connection in the middle of an answer, or its answer is no HTTP."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The head of an answer, and the connection that its body comes from."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def abort(self) -> None:
        """End it, whoever reads: that raises StreamError there."""
        self._writer.transport.abort()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, in pieces of at most 64 KiB. Raises StreamError where it is cut off."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                async for piece in self._chunked():
                    yield piece
            elif "content-length" in self.headers:
                async for piece in self._pieces(_number(self.headers["content-length"], 10)):
                    yield piece
            else:
                while piece := await self._reader.read(MAX_HEAD):
                    yield piece
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise StreamError("the answer was cut off") from error

    async def body(self, most: int = MAX_ERROR) -> bytes:
        """The whole body, of which at most `most` bytes are kept."""
        found = bytearray()
        async for piece in self.chunks():
            found += piece[: most - len(found)]
            if len(found) >= most:
                break
        return bytes(found)

    async def message(self) -> str:
        """What an error says, in one line."""
        text = (await self.body()).decode(errors="replace").strip()
        with contextlib.suppress(ValueError, AttributeError):
            text = str(json.loads(text).get("message") or text)
        return text or f"status {self.status}"

    async def _chunked(self) -> AsyncIterator[bytes]:
        while True:
            line = await self._reader.readuntil(b"\r\n")
            length = _number(line.split(b";")[0].decode(errors="replace").strip(), 16)
            if length == 0:
                return
            async for piece in self._pieces(length):
                yield piece
            await self._reader.readexactly(2)

    async def _pieces(self, length: int) -> AsyncIterator[bytes]:
        while length:
            piece = await self._reader.read(min(length, MAX_HEAD))
            if not piece:
                raise StreamError("the answer was cut off")
            length -= len(piece)
            yield piece


@contextlib.asynccontextmanager
async def ask(
    socket: str, path: str, params: Mapping[str, str] | None = None, *, head_seconds: float | None = CONNECT_SECONDS
) -> AsyncIterator[Answer]:
    """One GET on a connection of its own, closed at the end of the block.

    `path` is below the API's prefix, or absolute with a leading `//`. Raises OSError, of which TimeoutError is one.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_HEAD)
    try:
        target = path[1:] if path.startswith("//") else API_PREFIX + path
        query = f"?{urlencode(params)}" if params else ""
        writer.write(f"GET {target}{query} HTTP/1.1\r\nHost: podman\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(head_seconds):
            await writer.drain()
            answer = await _head(reader, writer)
        yield answer
    finally:
        # Whatever is on its way is of no interest any more, so nothing is waited for.
        writer.transport.abort()


async def _head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise StreamError("no answer") from error
    status, *lines = head.split("\r\n")
    words = status.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise StreamError("not an HTTP answer")
    pairs = (line.partition(":") for line in lines if line)
    return Answer(int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}, reader, writer)


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise StreamError("not an HTTP answer")
    return number
