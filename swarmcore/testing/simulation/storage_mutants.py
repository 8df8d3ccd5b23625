"""Mistakes in the files: what is synced, cut, kept and believed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from swarmcore.replication import durable, log_file, snapshot_file, snapshots, snapshotter, state_folder
from swarmcore.replication.log_file import DiskFullError, LogFile
from swarmcore.replication.snapshot_file import SnapshotWriter
from swarmcore.replication.write_queue import WriteQueue
from swarmcore.store.store import Store
from swarmcore.testing.simulation import member as simulated_member
from swarmcore.testing.simulation.files import SimulatedOs
from swarmcore.testing.simulation.mutants import around, method, mutant


def _nothing(*args: Any, **named: Any) -> None:
    """In the place of what is forgotten."""


@mutant
def log_not_synced() -> list[Any]:
    """The log is written and never synced."""

    def append(real: Any, self: LogFile, records: Any) -> None:
        self._sync = _nothing
        real(self, records)

    return [around(LogFile, "append", append)]


@mutant
def failed_sync_ignored() -> list[Any]:
    """A sync that fails is taken for one that succeeded."""

    def append(real: Any, self: LogFile, records: Any) -> None:
        def sync(descriptor: int) -> None:
            try:
                durable.os.fsync(descriptor)  # type: ignore[attr-defined]
            except OSError as error:
                if error.errno != errno.EIO:
                    raise

        self._sync = sync
        real(self, records)

    return [around(LogFile, "append", append)]


@mutant
def failed_sync_tried_again() -> list[Any]:
    """A sync that fails is tried again, and then succeeds: what it was for is gone all the same."""

    def append_frame(real: Any, self: LogFile, parts: Any) -> None:
        try:
            real(self, parts)
        except log_file.DiskFailedError:
            self._failed = False
            raise log_file.disk_full(self._folder) from None

    return [around(LogFile, "_append_frame", append_frame), method(LogFile, "_forget_unsynced", _nothing)]


@mutant
def not_synced_when_found() -> list[Any]:
    """What a killed process wrote is believed when it is read, and never synced."""
    real = LogFile.open.__func__  # type: ignore[attr-defined]

    def open(cls: Any, *args: Any, **named: Any) -> Any:
        with method(SimulatedOs, "fsync", _nothing):
            return real(cls, *args, **named)

    return [method(LogFile, "open", classmethod(open))]


@mutant
def bytes_of_a_failed_sync_left() -> list[Any]:
    """What a failed sync was for is found again by the next start."""
    return [method(LogFile, "_forget_unsynced", _nothing)]


@mutant
def folder_not_synced() -> list[Any]:
    """The names of new files are never made durable."""
    return [method(module, "sync_folder", _nothing) for module in (durable, log_file, snapshot_file, state_folder)]


@mutant
def snapshot_not_synced() -> list[Any]:
    """A snapshot gets its name before its content is durable."""

    def finish(real: Any, self: SnapshotWriter) -> Any:
        with method(SimulatedOs, "fsync", _only_folders):
            return real(self)

    return [around(SnapshotWriter, "finish", finish)]


def _only_folders(self: SimulatedOs, descriptor: int) -> None:
    opened = self._open[descriptor]
    if opened.file is None:
        opened.files.sync_folder(opened.path)


@mutant
def unfinished_write_left() -> list[Any]:
    """What a crash left of a write stays where it is, and the next one follows it."""
    return [method(LogFile, "_cut", staticmethod(_nothing))]


@mutant
def every_damage_is_an_unfinished_write() -> list[Any]:
    """Whatever can't be read is cut off, also what was acknowledged: the disk is damaged in between."""

    def append(real: Any, self: LogFile, records: Any) -> None:
        real(self, records)
        file = self._segments[-1].path
        content: Any = file
        if self.written % 7 == 0:
            content._file().data[-5] ^= 1

    return [method(log_file, "is_torn", lambda data, offset: True), around(LogFile, "append", append)]


@mutant
def half_a_write_left_on_a_full_disk() -> list[Any]:
    """What fitted of a write stays when the rest did not."""

    def take_back(self: LogFile, segment: Any, error: OSError) -> None:
        raise log_file.disk_full(self._folder) from error

    return [method(LogFile, "_take_back", take_back)]


@mutant
def refused_write_forgotten() -> list[Any]:
    """What had no room on the disk is not written later."""

    def on_written(real: Any, self: WriteQueue, future: Any) -> None:
        batch = list(self._batch)
        real(self, future)
        if not future.cancelled() and isinstance(future.exception(), DiskFullError):
            for persist in batch:
                if persist in self._waiting:
                    self._waiting.remove(persist)

    return [around(WriteQueue, "_on_written", on_written)]


@mutant
def hard_state_left_in_an_older_segment() -> list[Any]:
    """A new segment does not repeat the term and the vote, and the one that has them is removed."""

    def rotate(real: Any, self: LogFile) -> None:
        kept, self._hard_state = self._hard_state, None
        real(self)
        self._hard_state = kept

    return [around(LogFile, "_rotate", rotate)]


@mutant
def log_removed_before_its_snapshot() -> list[Any]:
    """What a snapshot is to replace is removed before that is durable."""
    real = snapshotter.write_snapshot

    async def write(folder: Any, keys: Any, disk: Any, snapshot: Any, pieces: Any) -> bool:
        for path in log_file.segment_paths(folder)[:-1]:
            path.unlink(missing_ok=True)
        return bool(await real(folder, keys, disk, snapshot, pieces))

    return [method(snapshots, "write_snapshot", write)]


@mutant
def too_much_of_the_log_removed() -> list[Any]:
    """A segment goes that holds entries behind the snapshot."""

    def compact(real: Any, self: LogFile, first_index: int, *, rotate: bool = False) -> None:
        real(self, first_index + 1000, rotate=rotate)

    return [around(LogFile, "compact", compact)]


@mutant
def snapshot_without_reset() -> list[Any]:
    """A received snapshot is added to what is there, and what was deleted meanwhile stays."""

    def replaced(real: Any, self: Store, index: int, tables: Any) -> None:
        for name, table in self._tables.items():
            for obj in table:
                if obj.id not in tables[name]:
                    tables[name].put(obj)
        real(self, index, tables)

    return [around(Store, "_replace", replaced)]


@mutant
def log_kept_behind_a_received_snapshot() -> list[Any]:
    """After a received snapshot the next start reads the old log on."""
    return [method(log_file, "after_start", lambda entries, start: entries)]


@mutant
def received_snapshot_not_noted() -> list[Any]:
    """That a snapshot took the place of the log is not written to the log."""
    from swarmcore.replication import write_queue

    real = write_queue._records

    def records(batch: Any) -> Any:
        return [record for record in real(batch) if not isinstance(record, log_file.LogStart)]

    return [method(write_queue, "_records", records)]


@mutant
def disk_of_another_member() -> list[Any]:
    """A member starts with what is another one's."""

    def read(path: Path, node_id: str) -> int:
        import json

        return int(json.loads(path.read_bytes())["raft_id"])

    return [method(state_folder, "_read_member", read)]


@mutant
def empty_disk_under_an_old_id() -> list[Any]:
    """A member that lost its disk goes on under its id, as if it had just joined."""
    real = state_folder.has_state

    def has_state(folder: Any) -> bool:
        if not real(folder):
            simulated_member.make_folder(folder.files, "node-1", 1, None)
        return True

    def read(path: Path, node_id: str) -> int:
        return int(node_id.rpartition("-")[2])

    return [method(state_folder, "has_state", has_state), method(state_folder, "_read_member", read)]
