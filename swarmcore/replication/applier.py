"""Applies what is agreed to the store, in order, in slices, and tells whoever waits for it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from swarmcore.errors import NotLeaderError, SwarmError
from swarmcore.raft.types import Entry, EntryKind, SnapshotMeta
from swarmcore.replication.snapshot_file import SnapshotReader
from swarmcore.store.store import Store

APPLY_SLICE_SECONDS = 0.005
LARGE_BYTES = 256 * 1024
"""An entry of so many bytes has a slice of its own: the largest take 15 ms."""


class _Expected(NamedTuple):
    term: int
    token: object
    done: asyncio.Future[None]


OnDisk = Callable[[Callable[[], bytes | None]], Awaitable[bytes | None]]
"""Runs a function that blocks, such as a `Disk`'s `submit`."""


class Applier:
    """The queue between agreement and the store. Lives on the loop."""

    def __init__(
        self,
        store: Store,
        applied: int,
        *,
        read_snapshot: Callable[[SnapshotMeta], Awaitable[SnapshotReader]],
        on_disk: OnDisk,
        on_entry: Callable[[Entry], None],
        on_slice: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`on_disk` runs what reads a file.

        `on_entry` is called for each entry after it was applied, `on_slice` after some were, `failed` once.
        """
        self.index = applied
        """Index of the last applied entry."""
        self._store = store
        self._read_snapshot = read_snapshot
        self._on_disk = on_disk
        self._on_entry = on_entry
        self._on_slice = on_slice
        self._failed = failed
        self._durable = 0
        self._queue: deque[tuple[int, Entry | SnapshotMeta]] = deque()
        self._expected: dict[int, _Expected] = {}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._is_scheduled = False
        self._restoring: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_behind(self) -> bool:
        """Whether something waits that could be applied; not while a snapshot is put in the place of everything."""
        return bool(self._queue) and self._queue[0][0] <= self._durable and self._restoring is None

    def add(self, after: int, *items: Entry | SnapshotMeta) -> None:
        """Take in what is to be applied once the `Persist` of number `after` is durable."""
        self._queue.extend((after, item) for item in items)

    def expect(self, index: int, term: int, token: object) -> asyncio.Future[None]:
        """A future that is done once this very entry was applied, with `token`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected[index] = _Expected(term, token, done)
        return done

    def lose(self, error: SwarmError, first: int = 0) -> None:
        """Tell whoever expects an entry from `first` on that it was lost."""
        for index in [index for index in self._expected if index >= first]:
            _set_exception(self._expected.pop(index).done, error)

    async def wait(self, index: int) -> None:
        """Return once the entry of `index` is applied."""
        if index > self.index:
            applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((index, applied))
            try:
                await applied
            finally:
                # Who gives up leaves nothing behind: without a majority nothing is applied, for as long as that lasts.
                if not applied.done() or applied.cancelled():
                    self._waiters.remove((index, applied))

    def run(self, durable: int) -> None:
        """Apply what is due, for one slice; the rest follows when the loop has had its turn."""
        self._durable = durable
        if not self._queue or self._is_closed or self._restoring is not None or self._is_scheduled:
            return
        deadline = time.monotonic() + APPLY_SLICE_SECONDS
        while self._queue and self._queue[0][0] <= self._durable:
            item = self._queue.popleft()[1]
            if isinstance(item, SnapshotMeta):
                self._restoring = asyncio.create_task(self._restore(item), name="restore snapshot")
                return
            try:
                self._apply(item)
            except Exception as error:  # noqa: BLE001 - a state that can't be applied ends the process, whatever it is
                self._failed(error)
                return
            if time.monotonic() >= deadline or self._is_large_next():
                self._is_scheduled = True
                asyncio.get_running_loop().call_soon(self._run_again)
                break
        self._tell()

    def _is_large_next(self) -> bool:
        """Whether what comes next fills a slice by itself."""
        item = self._queue[0][1] if self._queue else None
        return isinstance(item, Entry) and len(item.data) >= LARGE_BYTES

    def _run_again(self) -> None:
        self._is_scheduled = False
        self.run(self._durable)

    def _apply(self, entry: Entry) -> None:
        expected = self._expected.pop(entry.index, None)
        if expected is not None and expected.term != entry.term:
            _set_exception(expected.done, NotLeaderError("another leader's entry took the place of the write"))
            expected = None
        if entry.kind is EntryKind.NORMAL and entry.data:
            try:
                self._store.apply(entry.index, entry.data, None if expected is None else expected.token)
            except Exception as error:
                if expected is not None:
                    _set_exception(expected.done, error)
                raise
        self.index = entry.index
        if expected is not None and not expected.done.done():
            expected.done.set_result(None)
        self._on_entry(entry)

    def _tell(self) -> None:
        if self._waiters:
            for index, waiter in self._waiters:
                if index <= self.index and not waiter.done():
                    waiter.set_result(None)
            self._waiters = [(index, waiter) for index, waiter in self._waiters if not waiter.done()]
        self._on_slice()

    async def _restore(self, snapshot: SnapshotMeta) -> None:
        """Put a received snapshot in the place of the store."""
        try:
            await restore(self._store, await self._read_snapshot(snapshot), self._on_disk)
        except Exception as error:  # noqa: BLE001 - as in `run`
            self._failed(error)
            return
        self.index = snapshot.index
        self._restoring = None
        self._tell()
        self.run(self._durable)

    def close(self, error: SwarmError) -> None:
        """Apply nothing more; `error` is for whoever waits."""
        self._is_closed = True
        if self._restoring is not None:
            self._restoring.cancel()
        self.lose(error)
        for _, waiter in self._waiters:
            _set_exception(waiter, error)
        self._waiters.clear()


async def restore(store: Store, reader: SnapshotReader, on_disk: OnDisk) -> None:
    """Read a snapshot file into the store, a piece at a time, by `on_disk`: a disk that hangs must not stop a loop."""
    restoring = store.restoring()
    pieces = reader.pieces()
    while (piece := await on_disk(lambda: next(pieces, None))) is not None:
        restoring.add(piece)
        await asyncio.sleep(0)
    # A newer snapshot takes the file's place; held open, it would keep its room on the disk.
    reader.close()
    restoring.finish(reader.index)


def _set_exception(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
