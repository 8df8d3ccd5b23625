"""What a process printed: read back as lines, and kept within bounds."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final

from swarmcore.plugin.executor import LogLine, LogOptions

FILES: Final = {1: "stdout", 2: "stderr"}
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of each stream; then what is there becomes the previous part, and the one before that is gone."""
MAX_LINE_BYTES: Final = 64 * 1024
READ_BYTES: Final = 256 * 1024
POLL_SECONDS: Final = 0.2


def bound(folder: Path) -> None:
    """Start a stream's file anew that has become too long. Blocks. What is printed meanwhile may be lost."""
    for name in FILES.values():
        path = folder / name
        if path.exists() and path.stat().st_size > MAX_BYTES:
            shutil.copyfile(path, folder / f"{name}.1")
            # The process appends, so it goes on at the new end.
            os.truncate(path, 0)


class _Stream:
    """One file, read line by line as it grows."""

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> list[LogLine]:
        """The lines that came since; stamped with the time of the file's last change."""
        if self._file is None:
            if not self._path.exists():
                return []
            self._file = self._path.open("rb")
        facts = os.fstat(self._file.fileno())
        if facts.st_size < self._file.tell():
            self._file.seek(0)
        data = self._rest + self._file.read(READ_BYTES)
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [LogLine(stream=self.number, timestamp_ns=facts.st_mtime_ns, data=line + b"\n") for line in lines]

    def flush(self) -> list[LogLine]:
        """What stands after the last end of line."""
        rest, self._rest = self._rest, b""
        if not rest or self._file is None:
            return []
        stamp = os.fstat(self._file.fileno()).st_mtime_ns
        return [LogLine(stream=self.number, timestamp_ns=stamp, data=rest)]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


async def lines(folder: Path, options: LogOptions, is_over: Callable[[], bool]) -> AsyncIterator[LogLine]:
    """The lines of the streams asked for; with `follow` until the process is over.

    The files carry no times: a line has that of the last change of its file when it was read.
    """
    streams = [_Stream(number, folder / FILES[number]) for number in sorted(options.streams & FILES.keys())]
    try:
        # Without a tail only what stands after the last end of line gets here.
        last: deque[LogLine] = deque(maxlen=options.tail)
        while batch := [line for stream in streams for line in stream.read()]:
            for line in batch:
                if options.tail is None:
                    if _is_wanted(line, options):
                        yield line
                else:
                    last.append(line)
            await asyncio.sleep(0)
        if not options.follow:
            last.extend(line for stream in streams for line in stream.flush())
        for line in last:
            if _is_wanted(line, options):
                yield line
        while options.follow:
            over = is_over()
            batch = [line for stream in streams for line in stream.read()]
            for line in batch:
                yield line
            if not batch:
                if over:
                    break
                await asyncio.sleep(POLL_SECONDS)
        for line in [line for stream in streams for line in stream.flush()]:
            yield line
    finally:
        for stream in streams:
            stream.close()


def _is_wanted(line: LogLine, options: LogOptions) -> bool:
    return options.since_ns is None or line.timestamp_ns >= options.since_ns
