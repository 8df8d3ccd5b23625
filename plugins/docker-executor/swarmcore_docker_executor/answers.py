"""Answers of the engine that last: read as they come, on the event loop, without a thread for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from swarmcore.plugin.engine_calls import EngineError
from swarmcore.plugin.engine_http import Answer, ask, words_of
from swarmcore.plugin.executor import TemporaryError

ANSWER_SECONDS: Final = 60.0


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
        writers: list[asyncio.StreamWriter] = []

        def connected(writer: asyncio.StreamWriter) -> None:
            if self._is_closed:
                raise ConnectionResetError("the executor was closed")
            writers.append(writer)
            self._open.add(writer)
            held.add(writer)

        asking = ask(self._address, "GET", target, head_seconds=ANSWER_SECONDS, connected=connected)
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    answer = await stack.enter_async_context(asking)
                    message = await answer.message() if answer.status >= 400 else ""
                except OSError as error:
                    raise self._broken(error) from error
                if answer.status >= 400:
                    raise EngineError(answer.status, message)
                async with contextlib.aclosing(self._pieces(answer)) as pieces:
                    yield pieces
        finally:
            self._open.difference_update(writers)
            held.difference_update(writers)

    async def _pieces(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(answer.chunks()) as chunks:
                async for piece in chunks:
                    yield piece
        except OSError as error:
            raise self._broken(error) from error
        if self._is_closed:
            raise self._broken(ConnectionResetError("the executor was closed"))

    def close(self) -> None:
        """End all that are being read: their readers get a TemporaryError."""
        self._is_closed = True
        end(self._open)

    def _broken(self, error: Exception) -> TemporaryError:
        if self._is_closed:
            return TemporaryError("the executor was closed")
        return TemporaryError(f"no answer from the Docker engine at {self._address}: {words_of(error)}")
