"""What a container printed, as the engine's log endpoint tells it.

Each message of the engine comes in a frame with its stream, begins with its time, and is a line or 16 KiB of one. The
engine counts a tail in such messages of both streams, so the beginning of the last lines is looked for here.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote_plus, urlencode

from swarmcore.plugin.engine_calls import EngineError
from swarmcore.plugin.executor import ExecutorError, LogLine, LogOptions
from swarmcore_docker_executor.answers import Answers

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Of one frame; the engine's own are 16 KiB, its time and what the log driver adds."""
PIECE_BYTES: Final = 16 * 1024
"""A message of so many bytes without an end of line has a rest."""
MAX_LINE_BYTES: Final = 64 * 1024
STDOUT: Final = 1
HEADER_BYTES: Final = 8
_STAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_NO_ATTRS: Final[Mapping[str, str]] = {}


@dataclass(slots=True, kw_only=True)
class LogReader:
    """The output of one container."""

    answers: Answers
    api_version: str
    container: str
    """Id or name."""
    has_terminal: bool
    """Then there is one stream and no frames."""
    held: set[asyncio.StreamWriter]
    """Connections that are being read."""

    async def lines(self, options: LogOptions) -> AsyncGenerator[LogLine, None]:
        """The lines asked for; none where there is no container. Raises TemporaryError where the engine is away or the
        stream was ended, ExecutorError in the engine's words.
        """
        if options.tail == 0 and not options.follow:
            return
        since_ns, tail = options.since_ns, options.tail
        if tail:
            first = await self._first_of_last(tail, options.streams)
            since_ns = max(first or 0, since_ns or 0) or None
            tail = None
        pending: dict[int, _Message] = {}
        messages = self._messages(options.streams, follow=options.follow, since_ns=since_ns, tail=tail)
        async with contextlib.aclosing(messages):
            async for message in messages:
                begun = pending.pop(message.stream, None)
                line = begun.with_rest(message) if begun is not None else message
                if message.has_rest and len(line.data) + PIECE_BYTES <= MAX_LINE_BYTES:
                    pending[message.stream] = line
                else:
                    yield line.as_log_line()
            for line in pending.values():
                yield line.as_log_line()

    async def _first_of_last(self, count: int, streams: frozenset[int]) -> int | None:
        """When the first of the last `count` lines was written; None where there are not more than so many."""
        asked = count + 2
        while True:
            starts: deque[int] = deque(maxlen=count)
            total = 0
            is_open: dict[int, bool] = {}
            messages = self._messages(frozenset({1, 2}), follow=False, since_ns=None, tail=asked)
            async with contextlib.aclosing(messages):
                async for message in messages:
                    total += 1
                    if message.stream not in streams:
                        continue
                    # What comes first may be the rest of a line that began further up.
                    if not is_open.get(message.stream, True):
                        starts.append(message.timestamp_ns)
                    is_open[message.stream] = message.has_rest
            if len(starts) == count:
                return starts[0]
            if total < asked:
                return None if len(starts) < count - 1 else await self._start_within(count, streams)
            asked *= 8

    async def _start_within(self, count: int, streams: frozenset[int]) -> int | None:
        """As `_first_of_last`, when all that there is has been seen to be hardly more than so many lines."""
        starts: deque[int] = deque(maxlen=count)
        is_open: dict[int, bool] = {}
        messages = self._messages(streams, follow=False, since_ns=None, tail=None)
        async with contextlib.aclosing(messages):
            async for message in messages:
                if not is_open.get(message.stream, False):
                    starts.append(message.timestamp_ns)
                is_open[message.stream] = message.has_rest
        return starts[0] if len(starts) == count else None

    async def _messages(
        self, streams: frozenset[int], *, follow: bool, since_ns: int | None, tail: int | None
    ) -> AsyncGenerator[_Message, None]:
        query = {
            "follow": int(follow),
            "stdout": int(1 in streams),
            "stderr": int(2 in streams),
            "timestamps": 1,
            "details": 1,
            "since": f"{since_ns // 10**9}.{since_ns % 10**9:09d}" if since_ns else 0,
            "tail": tail if tail is not None else "all",
        }
        target = f"/v{self.api_version}/containers/{self.container}/logs?{urlencode(query)}"
        try:
            async with self.answers.get(target, self.held) as pieces:
                messages = _terminal_messages(pieces) if self.has_terminal else _framed_messages(pieces)
                async with contextlib.aclosing(messages):
                    async for message in messages:
                        yield message
        except EngineError as error:
            if error.code != 404:
                raise


@dataclass(frozen=True, slots=True)
class _Message:
    """A message of the engine, or several that make a line."""

    stream: int
    timestamp_ns: int
    data: bytes
    attrs: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_rest(self) -> bool:
        return len(self.data) >= PIECE_BYTES and not self.data.endswith(b"\n")

    def with_rest(self, rest: _Message) -> _Message:
        return _Message(self.stream, self.timestamp_ns, self.data + rest.data, self.attrs)

    def as_log_line(self) -> LogLine:
        return LogLine(stream=self.stream, timestamp_ns=self.timestamp_ns, data=self.data, attrs=self.attrs)


async def _framed_messages(pieces: AsyncIterator[bytes]) -> AsyncGenerator[_Message, None]:
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        at = 0
        while len(buffer) - at >= HEADER_BYTES:
            begin = at + HEADER_BYTES
            size = int.from_bytes(buffer[at + 4 : begin], "big")
            if size > MAX_MESSAGE_BYTES:
                raise ExecutorError(f"the Docker engine sent a log message of {size} bytes")
            if len(buffer) < begin + size:
                break
            yield _message(buffer[at], bytes(buffer[begin : begin + size]))
            at = begin + size
        del buffer[:at]
        # An engine that is faster than its reader lets others have their turn.
        await asyncio.sleep(0)


async def _terminal_messages(pieces: AsyncIterator[bytes]) -> AsyncGenerator[_Message, None]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield _message(STDOUT, line + b"\n")
        if len(rest) > MAX_MESSAGE_BYTES:
            raise ExecutorError(f"the Docker engine sent a log message of more than {len(rest)} bytes")
    if rest:
        yield _message(STDOUT, rest)


def _message(stream: int, data: bytes) -> _Message:
    """`<time> <details> <what was printed>`; the details are empty where the log driver adds none."""
    stamp, _, rest = data.partition(b" ")
    details, _, text = rest.partition(b" ")
    return _Message(stream or STDOUT, _nanoseconds(stamp), text, _attributes(details) if details else _NO_ATTRS)


def _nanoseconds(stamp: bytes) -> int:
    """Such as 2024-01-02T03:04:05.123456789Z; raises ExecutorError for what is no time."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        raise ExecutorError(f"the Docker engine sent a log message without a time: {stamp[:64]!r}")
    whole, fraction, zone = found.groups()
    moment = datetime.fromisoformat(whole.decode() + ("+00:00" if zone == b"Z" else zone.decode()))
    return int(moment.astimezone(UTC).timestamp()) * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))


def _attributes(details: bytes) -> dict[str, str]:
    """`key=value,key=value`, both escaped as in a query."""
    pairs = (pair.partition("=") for pair in details.decode(errors="replace").split(","))
    return {unquote_plus(key): unquote_plus(value) for key, _, value in pairs if key}
