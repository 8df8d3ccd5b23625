"""What a process printed, kept within bounds, with a record beside it of how long it was when.

A process writes into its file by itself, so nobody sees the moment of a line. Whoever looks at the file notes its
length and the time of its last change: a line was written at the time of the first note that has it whole. The notes
are in a file of their own, so that a line has the same time however often, and by whichever agent, it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

log = logging.getLogger("swarmcore.process-executor")

FILES: Final = {1: "stdout", 2: "stderr"}
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of each stream, at least, before the oldest part goes."""
SPARE_BYTES: Final = 8 * 1024 * 1024
"""How much more there may be before anything is done about it."""
NOTE: Final = struct.Struct("<QQ")
"""Length of the stream, and the time in ns at which it had it."""
NOTE_SECONDS: Final = 0.5
"""How exactly it is known when a line was written that nobody was waiting for."""
BOUND_SECONDS: Final = 10.0
_BLOCK: Final = 64 * 1024
_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2


class Record:
    """One stream of one task. All who read or note it in one agent share it."""

    def __init__(self, folder: Path, stream: int) -> None:
        self.stream = stream
        self.path = str(folder / FILES[stream])
        self.notes_path = self.path + ".times"
        self.length = 0
        """As last noted: what stands beyond has no time yet."""
        self.floor = 0
        """Where what is kept begins; before it there may be nothing."""
        self._time = 0
        self._is_loaded = False

    def note(self) -> bool:
        """Look how long the stream is; whether it has grown. Blocks for no longer than a look at a file takes."""
        try:
            facts = os.stat(self.path)
        except OSError:
            return False
        if not self._is_loaded:
            self._load()
        if facts.st_size == self.length:
            return False
        if facts.st_size < self.length:
            self._begin_anew()
        # A clock that was set back does not turn the order of lines around.
        self._time = max(self._time, facts.st_mtime_ns)
        self.length = facts.st_size
        self._append(NOTE.pack(self.length, self._time))
        return True

    def bound(self) -> None:
        """Give back the oldest part of a stream that has become too long. Blocks for as long as that takes."""
        try:
            used = os.stat(self.path).st_blocks * 512
        except FileNotFoundError:
            return
        if used <= MAX_BYTES + SPARE_BYTES:
            return
        floor = max(0, self.length - MAX_BYTES) // _BLOCK * _BLOCK
        try:
            _punch(self.path, floor)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            # The process appends, so it goes on at the new end; what is printed in between is lost here.
            os.truncate(self.path, 0)
            self._begin_anew()
            return
        self.floor = floor
        notes = os.stat(self.notes_path).st_size // NOTE.size
        kept = self.first_note(notes, lambda length, _: length > floor)
        _punch(self.notes_path, kept * NOTE.size // _BLOCK * _BLOCK)

    # Notes

    def open_notes(self) -> int:
        """A descriptor of the notes, to be closed by the caller."""
        return os.open(self.notes_path, os.O_RDONLY | os.O_CLOEXEC)

    def first_note(self, count: int, wanted: Callable[[int, int], bool]) -> int:
        """The number of the first of `count` notes whose length and time are wanted, as those of all after it are;
        `count` for none."""
        notes = self.open_notes()
        try:
            low, high = 0, count
            while low < high:
                middle = (low + high) // 2
                length, time_ns = NOTE.unpack(os.pread(notes, NOTE.size, middle * NOTE.size))
                # What was given back reads as zeros, and comes before everything that is kept.
                if length and wanted(length, time_ns):
                    high = middle
                else:
                    low = middle + 1
            return low
        finally:
            os.close(notes)

    def _load(self) -> None:
        self._is_loaded = True
        try:
            notes = self.open_notes()
        except FileNotFoundError:
            return
        try:
            size = os.fstat(notes).st_size // NOTE.size * NOTE.size
            if size:
                self.length, self._time = NOTE.unpack(os.pread(notes, NOTE.size, size - NOTE.size))
        finally:
            os.close(notes)
        if os.stat(self.notes_path).st_size != size:
            # The agent was killed in the middle of a note, or the disk was full.
            os.truncate(self.notes_path, size)
        output = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.floor = os.lseek(output, 0, os.SEEK_DATA)
        except OSError:
            self.floor = 0
        finally:
            os.close(output)

    def _append(self, note: bytes) -> None:
        try:
            notes = os.open(self.notes_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.write(notes, note) != len(note):
                    os.ftruncate(notes, os.fstat(notes).st_size // NOTE.size * NOTE.size)
            finally:
                os.close(notes)
        except OSError:
            # A full disk costs the exact time of these lines: they get that of the next note.
            return

    def _begin_anew(self) -> None:
        self.length = self.floor = 0
        with contextlib.suppress(OSError):
            os.truncate(self.notes_path, 0)


class Noter:
    """Notes the records of all tasks that run, and keeps them within bounds."""

    def __init__(self, pool: Executor) -> None:
        """`pool`: threads for what blocks."""
        self._pool = pool
        self._records: dict[str, Record] = {}
        self._task: asyncio.Task[None] | None = None
        self.is_closed = False

    def add(self, record: Record) -> None:
        """Note it from now on, until it is discarded."""
        self._records[record.path] = record
        if self._task is None and not self.is_closed:
            self._task = asyncio.create_task(self._run(), name="notes of what processes print")

    def discard(self, record: Record) -> None:
        """Note it once more, and then no longer."""
        if self._records.pop(record.path, None) is not None:
            record.note()

    async def aclose(self) -> None:
        self.is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        grown: dict[str, Record] = {}
        bound_at = time.monotonic() + BOUND_SECONDS
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            grown.update((path, record) for path, record in list(self._records.items()) if record.note())
            if time.monotonic() >= bound_at:
                for record in grown.values():
                    await self._bound(record)
                grown.clear()
                bound_at = time.monotonic() + BOUND_SECONDS

    async def _bound(self, record: Record) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, record.bound)
        except OSError as error:
            log.warning("%s can't be kept within bounds: %s", record.path, error.strerror or error)


def _punch(path: str, end: int) -> None:
    """Give the file's blocks before `end` back to the disk; its length stays, and so does where everything stands."""
    if not end:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(end)):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(descriptor)
