"""Answers of a container engine that take long or never end, and connections that become a stream of bytes both ways.

A small HTTP/1.1 client on a unix socket or TCP, for executors: no thread waits while an engine has nothing to say. What
is read is bounded: the head by `MAX_HEAD`, a body by who asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

MAX_HEAD: Final = 64 * 1024
MAX_ERROR: Final = 64 * 1024
CONNECT_SECONDS: Final = 10.0
DEFAULT_PORT: Final = 2375
FRAME_HEADER: Final = 8
MAX_FRAME: Final = 16 * 1024 * 1024
"""Bytes of one piece of output; engines cut far below."""


def words_of(error: BaseException) -> str:
    """What failed, in one line and without an error's number."""
    text = str(getattr(error, "strerror", None) or error).strip()
    if not text:
        text = "it did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return text.splitlines()[0]


class StreamError(OSError):
    """The engine ended the connection in the middle of an answer, or its answer is no HTTP."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The head of an answer, and the connection that its body comes from."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    """For what was upgraded; of no use otherwise."""

    def abort(self) -> None:
        """End it, whoever reads: that raises StreamError there."""
        self.writer.transport.abort()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, in pieces of at most 64 KiB. Raises StreamError where it is cut off."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                while length := _number((await self.reader.readuntil(b"\r\n")).split(b";")[0].strip(), 16):
                    async for piece in self._pieces(length):
                        yield piece
                    await self.reader.readexactly(2)
            elif "content-length" in self.headers:
                async for piece in self._pieces(_number(self.headers["content-length"].encode(), 10)):
                    yield piece
            else:
                while piece := await self.reader.read(MAX_HEAD):
                    yield piece
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise StreamError("the answer was cut off") from error

    async def body(self, most: int = MAX_ERROR) -> bytes:
        """The body; no more than about `most` bytes of it."""
        found = bytearray()
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for piece in chunks:
                found += piece
                if len(found) >= most:
                    break
        return bytes(found)

    async def message(self) -> str:
        """What an error says, in one line."""
        text = (await self.body()).decode(errors="replace").strip()
        with contextlib.suppress(ValueError, AttributeError):
            text = str(json.loads(text).get("message") or text)
        return " ".join(text.split()) or f"status {self.status}"

    async def _pieces(self, length: int) -> AsyncIterator[bytes]:
        while length:
            piece = await self.reader.read(min(length, MAX_HEAD))
            if not piece:
                raise StreamError("the answer was cut off")
            length -= len(piece)
            yield piece


@contextlib.asynccontextmanager
async def ask(
    address: str,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    upgrade: bool = False,
    head_seconds: float | None = CONNECT_SECONDS,
    connected: Callable[[asyncio.StreamWriter], None] | None = None,
) -> AsyncIterator[Answer]:
    """One request on a connection of its own, closed at the end of the block.

    `address`: `unix:///path` or `tcp://host:port`. With `upgrade` the connection becomes a stream of bytes both ways.
    `connected` is given the connection before anything is asked, for those who want to end it; what it raises ends it
    too. Raises OSError, of which TimeoutError is one.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await _connect(address)
    try:
        if connected is not None:
            connected(writer)
        query = f"?{urlencode(params)}" if params else ""
        sent = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path}{query} HTTP/1.1", "Host: engine", f"Content-Length: {len(sent)}"]
        head.extend(["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"])
        if body is not None:
            head.append("Content-Type: application/json")
        writer.write("\r\n".join([*head, "", ""]).encode() + sent)
        async with asyncio.timeout(head_seconds):
            await writer.drain()
            answer = await _head(reader, writer)
        yield answer
    finally:
        # Whatever is on its way is of no interest any more, so nothing is waited for.
        writer.transport.abort()


async def frames(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[int, bytes], None]:
    """Number of the stream and payload of each frame of an engine's output: a byte, three of nothing, the length in
    four. Raises StreamError for what is none."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        start = 0
        while len(buffer) - start >= FRAME_HEADER:
            length = int.from_bytes(buffer[start + 4 : start + FRAME_HEADER], "big")
            if buffer[start] > 3 or length > MAX_FRAME:
                raise StreamError("not a stream of output")
            end = start + FRAME_HEADER + length
            if len(buffer) < end:
                break
            yield buffer[start], bytes(buffer[start + FRAME_HEADER : end])
            start = end
        del buffer[:start]
        # An engine that is faster than its reader lets others have their turn.
        await asyncio.sleep(0)


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return await asyncio.open_unix_connection(rest, limit=MAX_HEAD)
    if scheme == "tcp" and ":" not in rest:
        rest = f"{rest.rstrip('/')}:{DEFAULT_PORT}"
    host, _, port = rest.rstrip("/").rpartition(":")
    if scheme not in ("tcp", "http") or not port.isdigit():
        raise StreamError(f"can't read streams from an engine at {address!r}: use a unix socket")
    return await asyncio.open_connection(host.strip("[]"), int(port), limit=MAX_HEAD)


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


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise StreamError("not an HTTP answer")
    return number
