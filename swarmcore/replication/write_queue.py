"""What the Raft machine wants durable, written in order, in as few `fdatasync` as the disk allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from swarmcore.clock import Clock
from swarmcore.raft.effects import Persist
from swarmcore.replication.disk import Disk
from swarmcore.replication.log_file import DiskFullError, LogFile, LogStart, Record

MAX_BATCH_BYTES = 8 * 1024 * 1024


class WriteQueue:
    """One batch is on the disk thread; what comes meanwhile becomes the next batch. Lives on the loop."""

    def __init__(
        self,
        log_file: LogFile,
        disk: Disk,
        clock: Clock,
        *,
        took: Callable[[float], None],
        written: Callable[[int], None],
        refused: Callable[[int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`took` gets the seconds of each write; `written` and `refused` the number of the last, and of the first
        `Persist` they concern.
        """
        self._log_file = log_file
        self._disk = disk
        self._clock = clock
        self._took = took
        self._written = written
        self._refused = refused
        self._failed = failed
        self._waiting: deque[Persist] = deque()
        self._batch: list[Persist] = []
        self.answered = 0
        """Writes that the disk has answered, whatever it said."""
        self.is_full = False
        """The disk has no room to spare: new writes are to be refused until `check_room` finds some."""

    @property
    def is_writing(self) -> bool:
        """Whether a write is with the disk."""
        return bool(self._batch)

    def put(self, persist: Persist) -> None:
        self._waiting.append(persist)
        self.flush()

    def take_back(self) -> None:
        """Forget what is not written. Nothing is under way then: it is called while a refusal is handled."""
        self._waiting.clear()

    def flush(self) -> None:
        """Start writing what waits, unless a batch is under way or there is no room."""
        if self._batch or not self._waiting or self.is_full:
            return
        size = 0
        while self._waiting and size <= MAX_BATCH_BYTES:
            persist = self._waiting.popleft()
            size += sum(len(entry.data) for entry in persist.entries)
            self._batch.append(persist)
        records = _records(self._batch)
        log_file, clock = self._log_file, self._clock

        def write() -> tuple[bool, float]:
            started = clock.monotonic()
            log_file.append(records)
            return log_file.has_space(), clock.monotonic() - started

        self._disk.submit(write).add_done_callback(self._on_written)

    def _on_written(self, future: asyncio.Future[tuple[bool, float]]) -> None:
        batch, self._batch = self._batch, []
        self.answered += 1
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            has_space, seconds = future.result()
            self.is_full = not has_space
            self._took(seconds)
            self._written(batch[-1].number)
            self._force_flush()
        elif isinstance(error, DiskFullError):
            self.is_full = True
            self._waiting.extendleft(reversed(batch))
            self._refused(batch[0].number)
        else:
            self._failed(error)

    def _force_flush(self) -> None:
        # What was accepted before the disk ran short may use the reserve.
        was_full, self.is_full = self.is_full, False
        self.flush()
        self.is_full = was_full

    async def check_room(self) -> bool:
        """Ask the disk anew; when it has room, what is owed is written."""
        self.is_full = not await self._disk.submit(self._log_file.has_space)
        self.flush()
        return not self.is_full


def _records(batch: list[Persist]) -> list[Record]:
    records: list[Record] = []
    for persist in batch:
        if persist.snapshot is not None:
            records.append(LogStart(persist.snapshot.index, persist.snapshot.term))
        records.extend(persist.entries)
    hard_state = next((p.hard_state for p in reversed(batch) if p.hard_state is not None), None)
    if hard_state is not None:
        records.append(hard_state)
    return records
