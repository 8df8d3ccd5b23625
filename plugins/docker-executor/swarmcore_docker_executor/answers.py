"""Answers of the engine that last: read as they come, on the event loop, without a thread for each."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from swarmcore.plugin.executor import TemporaryError
from swarmcore_docker_executor.engine import EngineError

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0
PIECE_BYTES: Final = 64 * 1024
MAX_ERROR_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 100


_FAILURES: Final = (OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError)


def end(held: set[asyncio.StreamWriter]) -> None:
    """End answers that are being read: their readers get a TemporaryError."""
    for writer in list(held):
        writer.transport.abort()


class Answers:
    """The answers of one engine that are being read. Closing it ends them all."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._open: set[asyncio.StreamWriter] = set()
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def get(self, target: str, held: set[asyncio.StreamWriter]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Ask for `target`, and give the body piece by piece; whoever leaves the block has closed the connection.
        Meanwhile it is in `held`, for those who want to end it.

        Raises EngineError for an answer above 399, TemporaryError where there is none or it breaks off.
        """
        writer: asyncio.StreamWriter | None = None
        try:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    reader, writer = await self._connect()
                if self._is_closed:
                    raise ConnectionResetError("the executor was closed")
                self._open.add(writer)
                held.add(writer)
                head = f"GET {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                async with asyncio.timeout(ANSWER_SECONDS):
                    await writer.drain()
                    status, headers = await _head(reader)
            except _FAILURES as error:
                raise self._broken(error) from error
            pieces = self._pieces(reader, headers)
            if status >= 400:
                raise EngineError(status, await _message(pieces))
            yield pieces
        finally:
            if writer is not None:
                self._open.discard(writer)
                held.discard(writer)
                writer.close()

    async def _pieces(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
        try:
            if headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    while size:
                        piece = await reader.read(min(size, PIECE_BYTES))
                        if not piece:
                            raise EOFError("the connection was closed")
                        size -= len(piece)
                        yield piece
                    await reader.readexactly(2)
            else:
                left = int(headers.get("content-length", "-1"))
                while left and (piece := await reader.read(PIECE_BYTES if left < 0 else min(left, PIECE_BYTES))):
                    left = left - len(piece) if left > 0 else left
                    yield piece
        except _FAILURES as error:
            raise self._broken(error) from error
        if self._is_closed:
            raise self._broken(ConnectionResetError("the executor was closed"))

    def close(self) -> None:
        """End all that are being read: their readers get a TemporaryError."""
        self._is_closed = True
        end(self._open)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._address)
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path, limit=PIECE_BYTES)
        return await asyncio.open_connection(parts.hostname, parts.port or 2375, limit=PIECE_BYTES)

    def _broken(self, error: Exception) -> TemporaryError:
        if self._is_closed:
            return TemporaryError("the executor was closed")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return TemporaryError(f"no answer from the Docker engine at {self._address}: {reason}")


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    headers: dict[str, str] = {}
    while line := (await reader.readuntil(b"\r\n")).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
        if len(headers) > MAX_HEADERS:
            raise ValueError("an answer with too many headers")
    return status, headers


async def _message(pieces: AsyncIterator[bytes]) -> str:
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > MAX_ERROR_BYTES:
            break
    text = body.decode(errors="replace").strip()
    try:
        told = json.loads(text)
    except ValueError:
        return text
    return str(told.get("message") or text) if isinstance(told, dict) else text
