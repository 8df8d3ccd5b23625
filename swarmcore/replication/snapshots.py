"""The snapshots of one replica: when one is due, how it is taken or received, and what it lets go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from swarmcore.clock import Clock
from swarmcore.errors import AbortedError
from swarmcore.raft.events import SnapshotTaken
from swarmcore.raft.machine import Raft
from swarmcore.raft.types import SnapshotMeta
from swarmcore.replication.applier import Applier
from swarmcore.replication.disk import Disk
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import FULL, RESERVE_BYTES, SEGMENT_BYTES, DiskFailedError, LogFile, disk_full
from swarmcore.replication.snapshot_file import (
    SnapshotReader,
    received_pieces,
    remove_before,
    remove_received,
    snapshot_path,
)
from swarmcore.replication.snapshotter import receive_snapshot, write_snapshot
from swarmcore.replication.state_folder import description
from swarmcore.store.store import Store

log = logging.getLogger("swarmcore.replication")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a replica makes a snapshot, what it keeps, and how its files are cut."""

    snapshot_entries: int = 10_000
    snapshot_bytes: int = 64 * 1024 * 1024
    keep_entries: int = 500
    """Entries before a snapshot that stay in the log, for members that lag behind."""
    keep_bytes: int = 32 * 1024 * 1024
    """The same, in bytes: an entry has up to 1.5 MiB, and what stays is in memory and is read at each start."""
    snapshot_retry_seconds: float = 10.0
    segment_bytes: int = SEGMENT_BYTES
    reserve_bytes: int = RESERVE_BYTES
    """Free space below which new writes are refused."""


class Snapshots:
    """Satisfies nothing but the replica, which gives it its parts. One snapshot is written at a time."""

    def __init__(
        self, *, folder: Path, store: Store, keys: KeyRing, log_file: LogFile, log_disk: Disk, limits: Limits,
        clock: Clock, raft: Raft, applier: Applier, taken: Callable[[SnapshotTaken], object],
    ) -> None:  # fmt: skip
        """`taken` tells the machine of a snapshot that is durable."""
        self._folder = folder
        self._store = store
        self._keys = keys
        self._log_file = log_file
        self._log_disk = log_disk
        self._limits = limits
        self._clock = clock
        self._raft = raft
        self._applier = applier
        self._taken = taken
        self.disk = Disk("raft snapshot")
        self.lock = asyncio.Lock()
        """Held while one is written."""
        self._is_due = asyncio.Event()
        self._bytes_at_last = 0
        self._receiving: asyncio.Task[int | None] | None = None

    async def run(self) -> None:
        """Take one whenever it is due, until cancelled."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            if not await self.take():
                await self._clock.sleep_until(self._clock.monotonic() + self._limits.snapshot_retry_seconds)

    def note_growth(self) -> None:
        """The log has grown: it may be time."""
        grown = self._log_file.written - self._bytes_at_last
        entries = self._applier.index - self._raft.snapshot.index
        if entries >= self._limits.snapshot_entries or (grown >= self._limits.snapshot_bytes and entries > 0):
            self._is_due.set()

    async def take(self) -> bool:
        """Write what is applied now, then let the log before it go; False when the disk has no room."""
        async with self.lock:
            index, bytes_before = self._applier.index, self._log_file.written
            term = self._raft.log.term_at(index)
            if term is None:
                return True  # a received snapshot is about to replace everything
            snapshot = SnapshotMeta(index=index, term=term, membership=self._raft.membership_at(index))
            started = time.monotonic()
            key = await write_snapshot(self._folder, self._keys, self.disk, snapshot, self._store.snapshot())
            if key is None:
                return False
            self._bytes_at_last = bytes_before
            keep_from = self._keep_from(index)
            self._taken(SnapshotTaken(snapshot, keep_from))
            # It was due all the time that it took.
            self._is_due.clear()
            self.note_growth()
            try:
                await self.disk.submit(lambda: remove_before(self._folder, index))
                await self.disk.submit(lambda: remove_received(self._folder))
                await self._log_disk.submit(lambda: self._log_file.compact(keep_from))
            except OSError as error:
                what = f"can't remove what a snapshot replaced from {str(self._folder)!r}"
                raise DiskFailedError(f"{what}: {error.strerror}") from error
            try:
                await self._log_disk.submit(lambda: self._keys.retain(self._log_file.keys_in_use | {key}))
            except OSError as error:
                # A key too many does no harm, and the next snapshot tries again.
                log.warning("can't remove old data keys from %r: %s", str(self._folder), error.strerror)
            log.info("snapshot of entry %d taken in %.2f s", index, time.monotonic() - started)
            return True

    def _keep_from(self, index: int) -> int:
        """The first entry that stays in the log when a snapshot holds everything up to `index`."""
        first = max(1, index - self._limits.keep_entries + 1)
        size = 0
        for entry in reversed(self._raft.log.between(max(first, self._raft.log.start_index + 1), index)):
            size += len(entry.data)
            if size > self._limits.keep_bytes:
                return entry.index + 1
        return first

    async def received(self, snapshot: SnapshotMeta, transfer: str) -> int:
        """How many pieces are here of a transfer that broke off. One that still seems to go on ends now."""
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait([self._receiving])
        folder, keys = self._folder, self._keys
        return await self.disk.submit(
            lambda: received_pieces(folder, keys, snapshot.index, description(snapshot), transfer)
        )

    async def receive(self, snapshot: SnapshotMeta, pieces: AsyncIterator[bytes], *, transfer: str, first: int) -> None:
        """Write one that comes from the leader; the caller holds `lock`.

        Raises ResourceExhaustedError, and AbortedError when it has to be sent again.
        """
        work = self._receiving = asyncio.create_task(
            receive_snapshot(self._folder, self._keys, self.disk, snapshot, pieces, transfer=transfer, first=first),
            name="receive snapshot",
        )
        try:
            await asyncio.wait([work])
        finally:
            self._receiving = None
            work.cancel()
            # The stream must not be closed under it.
            await asyncio.wait([work])
        if work.cancelled():
            raise AbortedError("the snapshot is sent anew meanwhile")
        if work.result() is None:
            raise disk_full(self._folder)

    def read(self, snapshot: SnapshotMeta) -> asyncio.Future[SnapshotReader]:
        """Open one; the future raises OSError where a newer one took its place."""
        path = snapshot_path(self._folder, snapshot.index)
        return self.disk.submit(lambda: SnapshotReader(path, self._keys))

    async def rotate_keys(self) -> None:
        """Encrypt everything new, and a fresh snapshot, under a new data key. Older keys go when no file needs them.

        Raises ResourceExhaustedError when the disk has no room for the snapshot; it is made later then.
        """
        try:
            await self._log_disk.submit(self._keys.rotate)
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(self._folder) from error
            raise DiskFailedError(f"can't write the data keys in {str(self._folder)!r}: {error.strerror}") from error
        await self._log_disk.submit(lambda: self._log_file.compact(0, rotate=True))
        if not await self.take():
            raise disk_full(self._folder)
