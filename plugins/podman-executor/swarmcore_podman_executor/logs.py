"""What a container printed, read from the engine without a thread.

The engine's own `tail` loses ends of lines, so lines are counted here: the output is read once to know how many there
are, and once more for the last of them. Nothing is kept in memory, however long it is.

conmon writes down what it has read from the container, and cuts a line where its buffer ends; what it cut is joined.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Final

from swarmcore.plugin.engine_http import Answer, frames, words_of
from swarmcore.plugin.executor import ExecutorError, LogLine, LogOptions, TemporaryError
from swarmcore_podman_executor.differences import log_timestamp_ns
from swarmcore_podman_executor.engine import Engine

MAX_LINE: Final = 64 * 1024
"""Bytes; what is longer comes in pieces."""
REST_SECONDS: Final = 0.1
"""So long the rest of a line is waited for while the container runs; a prompt has none."""


async def read_logs(
    engine: Engine, container_id: str, options: LogOptions, answers: set[Answer]
) -> AsyncGenerator[LogLine, None]:
    """The lines of a container; a long one comes in pieces, of which only the last has an end of line.

    `answers` holds what is being read, for who wants to end that. Raises TemporaryError where the engine is away or
    the reading was ended, ExecutorError in the engine's words.
    """
    skipped, pieces = 0, -1
    if options.tail is not None:
        pieces, lines = 0, _Lines()
        async with contextlib.aclosing(_lines(engine, container_id, options, answers, follow=False)) as found:
            async for line in found:
                pieces += 1
                lines.number_of(line)
        skipped = max(0, lines.count - options.tail)
    if options.follow:
        pieces = -1
    lines = _Lines()
    async with contextlib.aclosing(_lines(engine, container_id, options, answers, follow=options.follow)) as found:
        async for line in found:
            if pieces == 0:
                return  # What follows was printed since the lines were counted.
            pieces -= 1
            if lines.number_of(line) >= skipped:
                yield line


class _Lines:
    """Counts lines, which begin on each stream where the one before has ended."""

    def __init__(self) -> None:
        self.count = 0
        self._open: dict[int, int] = {}

    def number_of(self, piece: LogLine) -> int:
        """Of the line that this piece belongs to, from 0 on."""
        number = self._open.pop(piece.stream, -1)
        if number < 0:
            number = self.count
            self.count += 1
        if not piece.data.endswith(b"\n"):
            self._open[piece.stream] = number
        return number


async def _lines(
    engine: Engine, container_id: str, options: LogOptions, answers: set[Answer], *, follow: bool
) -> AsyncGenerator[LogLine, None]:
    pieces = _pieces(engine, container_id, options, answers, follow=follow)
    async with contextlib.aclosing(joined(pieces, REST_SECONDS if follow else None)) as found:
        async for line in found:
            yield line


async def joined(pieces: AsyncGenerator[LogLine, None], rest_seconds: float | None) -> AsyncGenerator[LogLine, None]:
    """Join the pieces of a line, up to 64 KiB; a rest that does not come within `rest_seconds` is not waited for.

    Closes `pieces`.
    """
    unfinished: dict[int, LogLine] = {}
    reading: asyncio.Future[LogLine | None] | None = None
    loop = asyncio.get_running_loop()
    deadline = 0.0
    try:
        while True:
            if unfinished and rest_seconds is not None:
                reading = reading or asyncio.ensure_future(_next(pieces))
                await asyncio.wait([reading], timeout=max(0.0, deadline - loop.time()))
                if not reading.done():
                    for line in unfinished.values():
                        yield line
                    unfinished.clear()
                    continue
            piece = await (reading or _next(pieces))
            reading = None
            if piece is None:
                break
            begun = unfinished.pop(piece.stream, None)
            if begun is not None and len(begun.data) + len(piece.data) > MAX_LINE:
                yield begun
            elif begun is not None:
                piece = LogLine(stream=piece.stream, timestamp_ns=begun.timestamp_ns, data=begun.data + piece.data)
            if piece.data.endswith(b"\n"):
                yield piece
            else:
                if not unfinished and rest_seconds is not None:
                    deadline = loop.time() + rest_seconds
                unfinished[piece.stream] = piece
        for line in unfinished.values():
            yield line
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        await pieces.aclose()


async def _next(pieces: AsyncGenerator[LogLine, None]) -> LogLine | None:
    return await anext(pieces, None)


async def _pieces(
    engine: Engine, container_id: str, options: LogOptions, answers: set[Answer], *, follow: bool
) -> AsyncGenerator[LogLine, None]:
    params = {
        "stdout": str(1 in options.streams).lower(),
        "stderr": str(2 in options.streams).lower(),
        "follow": str(follow).lower(),
        "timestamps": "true",
    }
    if options.since_ns is not None:
        params["since"] = _text(options.since_ns)
    try:
        async with engine.stream(f"/containers/{container_id}/logs", params, head_seconds=None) as answer:
            if answer.status == 404:
                raise ExecutorError("there is no output: the container is gone")
            if answer.status >= 400:
                raise ExecutorError(await answer.message())
            answers.add(answer)
            try:
                async with contextlib.aclosing(answer.chunks()) as chunks, contextlib.aclosing(frames(chunks)) as found:
                    async for stream, data in found:
                        stamp, _, text = data.partition(b" ")
                        yield LogLine(stream=stream, timestamp_ns=log_timestamp_ns(stamp.decode()), data=text)
            finally:
                answers.discard(answer)
    except (OSError, ValueError) as error:
        reason = words_of(error)
        raise TemporaryError(
            f"the output can't be read from the Podman engine at {engine.address}: {reason}"
        ) from error


def _text(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
