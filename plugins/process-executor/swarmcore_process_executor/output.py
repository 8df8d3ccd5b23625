"""What a process printed, read back line by line: from its end, from a time on, or as it grows."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

from swarmcore.api.log_lines import WARNING_ATTR
from swarmcore.plugin.executor import LogLine, LogOptions
from swarmcore_process_executor.record import FILES, NOTE, Record

MAX_LINE_BYTES: Final = 64 * 1024
"""Longer lines come in pieces."""
READ_BYTES: Final = 64 * 1024
POLL_SECONDS: Final = 0.2
IDLE_POLL_SECONDS: Final = 0.6
"""Between looks at a process that has been quiet for some seconds."""
QUIET_LOOKS: Final = 25
LOOKS_BEFORE_END: Final = 5
"""With nothing new, before anyone asks whether the process has ended: that costs more than a look at its files."""


class _Reader:
    """One stream, from some place on."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.lines: deque[LogLine] = deque()
        """Read and not yet given out."""
        self._file = os.open(record.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._notes = record.open_notes()
        except BaseException:
            os.close(self._file)
            raise
        self._at = 0
        """Where the next read begins."""
        self._rest = b""
        """The beginning of a line whose end has not been read."""
        self._note = 0
        self._length = self._time = 0
        """The note that `_at` falls under: the stream had this length at this time."""
        self._skips = False
        """What is read first is the end of a line whose beginning is gone."""

    def close(self) -> None:
        os.close(self._file)
        os.close(self._notes)

    @property
    def has_more(self) -> bool:
        """Whether there is something that was noted and not read."""
        return self._at < self.record.length

    # Where to begin

    def begin_at_floor(self) -> None:
        self._begin(self.record.floor, is_line_start=self.record.floor == 0)

    def begin_since(self, since_ns: int) -> None:
        """At the first line that may be of that time or later."""
        count = os.fstat(self._notes).st_size // NOTE.size
        first = self.record.first_note(count, lambda _, time_ns: time_ns >= since_ns)
        if first == 0:
            self.begin_at_floor()
            return
        length, _ = self._read_note(first - 1)
        # The line under way at that moment was finished later.
        self._begin(max(self._line_start(length), self.record.floor), is_line_start=True)

    def begin_last(self, count: int) -> None:
        """`count` lines before the end; what has no end yet counts as a line."""
        end = start = self.record.length
        floor = self.record.floor
        if not count or end == floor:
            self._begin(end if not count else floor, is_line_start=True)
            return
        # The end of the last line begins no other one.
        wanted = count + 1 if os.pread(self._file, 1, end - 1) == b"\n" else count
        while start > floor:
            begin = max(floor, start - READ_BYTES)
            piece = os.pread(self._file, start - begin, begin)
            found = piece.count(b"\n")
            if found >= wanted:
                at = len(piece)
                for _ in range(wanted):
                    at = piece.rindex(b"\n", 0, at)
                self._begin(begin + at + 1, is_line_start=True)
                return
            wanted -= found
            start = begin
        self.begin_at_floor()

    def _begin(self, at: int, *, is_line_start: bool) -> None:
        self._at = at
        self._skips = not is_line_start
        count = os.fstat(self._notes).st_size // NOTE.size
        self._note = self.record.first_note(count, lambda length, _: length > at)
        self._length = 0

    def _line_start(self, at: int) -> int:
        begin = max(0, at - MAX_LINE_BYTES)
        return begin + os.pread(self._file, at - begin, begin).rfind(b"\n") + 1

    # Reading

    def read(self) -> None:
        """Read on, up to READ_BYTES, into `lines`."""
        if self._at > self.record.length:
            # It was begun anew.
            self._at = self._note = self._length = 0
            self._rest = b""
        if self._at < self.record.floor:
            # Who reads more slowly than the process writes loses what is given back, and is told.
            self.lines.append(self._loss(self.record.floor - self._at))
            self._begin(self.record.floor, is_line_start=False)
            self._rest = b""
        if self._length <= self._at:
            self._next_note()
        end = min(self._length, self._at + READ_BYTES)
        data = os.pread(self._file, end - self._at, self._at)
        self._at += len(data)
        if self._skips and data:
            _, newline, data = data.partition(b"\n")
            self._skips = not newline
        if self._rest:
            data = self._rest + data
        *whole, self._rest = data.split(b"\n")
        stream, time = self.record.stream, self._time
        for line in whole:
            if len(line) < MAX_LINE_BYTES:
                self.lines.append(LogLine(stream=stream, timestamp_ns=time, data=line + b"\n"))
            else:
                self._in_pieces(line + b"\n")
        while len(self._rest) >= MAX_LINE_BYTES:
            piece, self._rest = self._rest[:MAX_LINE_BYTES], self._rest[MAX_LINE_BYTES:]
            self.lines.append(LogLine(stream=stream, timestamp_ns=time, data=piece))

    def _loss(self, count: int) -> LogLine:
        name = FILES[self.record.stream]
        words = (
            f"{count} bytes of a task's {name} were gone before they were read: it prints faster than they are taken"
        )
        data = f"warning: {words}\n".encode()
        return LogLine(stream=2, timestamp_ns=self._time, data=data, attrs={WARNING_ATTR: words})

    def finish(self) -> None:
        """What stands after the last end of line is a line, too."""
        if self._rest:
            self.lines.append(LogLine(stream=self.record.stream, timestamp_ns=self._time, data=self._rest))
            self._rest = b""

    def _in_pieces(self, line: bytes) -> None:
        for start in range(0, len(line), MAX_LINE_BYTES):
            piece = line[start : start + MAX_LINE_BYTES]
            self.lines.append(LogLine(stream=self.record.stream, timestamp_ns=self._time, data=piece))

    def _next_note(self) -> None:
        """The note that has what is read next."""
        while self._length <= self._at:
            self._length, self._time = self._read_note(self._note)
            self._note += 1

    def _read_note(self, number: int) -> tuple[int, int]:
        note = os.pread(self._notes, NOTE.size, number * NOTE.size)
        if len(note) == NOTE.size:
            length, time = NOTE.unpack(note)
            return length, time
        # A note that could not be written.
        return self.record.length, max(self._time, os.fstat(self._file).st_mtime_ns)


async def lines(records: Sequence[Record], options: LogOptions, is_over: Callable[[], bool]) -> AsyncIterator[LogLine]:
    """The lines of the streams asked for, in the order of their times; with `follow` until the process is over."""
    wanted = [record for record in records if record.stream in options.streams]
    readers: list[_Reader] = []
    try:
        for record in wanted:
            _maybe_open(record, readers, options)
        async for line in _there(readers, options):
            yield line
        quiet = 0
        while options.follow:
            over = quiet % LOOKS_BEFORE_END == LOOKS_BEFORE_END - 1 and is_over()
            for record in wanted:
                if record.note() and not any(reader.record is record for reader in readers):
                    # All of it is new to a follower.
                    _maybe_open(record, readers, LogOptions())
            if not any(reader.has_more for reader in readers):
                if over:
                    break
                quiet += 1
                await asyncio.sleep(POLL_SECONDS if quiet < QUIET_LOOKS else IDLE_POLL_SECONDS)
                continue
            quiet = 0
            async for line in _all_noted(readers):
                yield line
        for reader in readers:
            reader.finish()
        for line in _merged(readers, is_end=True):
            if options.since_ns is None or line.timestamp_ns >= options.since_ns:
                yield line
    finally:
        for reader in readers:
            reader.close()


async def _there(readers: Sequence[_Reader], options: LogOptions) -> AsyncIterator[LogLine]:
    """What was there when it was asked for."""
    since = options.since_ns if options.since_ns is not None else 0
    if options.tail is None:
        async for line in _all_noted(readers):
            if line.timestamp_ns >= since:
                yield line
        return
    last: deque[LogLine] = deque(maxlen=options.tail)
    async for line in _all_noted(readers):
        last.append(line)
    if not options.follow:
        for reader in readers:
            reader.finish()
        last.extend(_merged(readers, is_end=True))
    for line in last:
        if line.timestamp_ns >= since:
            yield line


def _maybe_open(record: Record, readers: list[_Reader], options: LogOptions) -> None:
    """A reader of the record, if there is anything; it begins where the options say."""
    record.note()
    try:
        reader = _Reader(record)
    except FileNotFoundError:
        return
    readers.append(reader)
    if options.tail is not None:
        reader.begin_last(options.tail)
    elif options.since_ns is not None:
        reader.begin_since(options.since_ns)
    else:
        reader.begin_at_floor()


async def _all_noted(readers: Sequence[_Reader]) -> AsyncIterator[LogLine]:
    """Everything that was noted; the loop has its turn after each piece."""
    while any(reader.has_more for reader in readers):
        for reader in readers:
            if not reader.lines and reader.has_more:
                reader.read()
        for line in _merged(readers, is_end=False):
            yield line
        await asyncio.sleep(0)


def _merged(readers: Sequence[_Reader], *, is_end: bool) -> Iterator[LogLine]:
    """Lines in the order of their times, as far as that is known: a stream of which more is to be read may have earlier
    ones than the other."""
    while True:
        first = None
        for reader in readers:
            if not reader.lines:
                if not is_end and reader.has_more:
                    return
            elif first is None or reader.lines[0].timestamp_ns < first.lines[0].timestamp_ns:
                first = reader
        if first is None:
            return
        yield first.lines.popleft()
