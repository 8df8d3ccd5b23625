"""Snapshots on disk: what the log said up to an index, so that the log before it can go.

The first frame is the description, the last an empty end mark, and those between are pieces of the store. A snapshot is
written beside and renamed when it is durable: one that has its name is complete. Everything here blocks.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from swarmcore.replication.damage import damaged
from swarmcore.replication.durable import TEMPORARY_SUFFIX, sync_folder, write_all
from swarmcore.replication.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    SNAPSHOT,
    Header,
    body_at,
    seal,
    unseal,
)
from swarmcore.replication.keys import KeyRing

_PREFIX = "snapshot-"
_SYNC_BYTES = 4 * 1024 * 1024
_DESCRIPTION, _PIECE, _END = b"\x01", b"\x02", b"\x03"


class SnapshotWriter:
    """One snapshot being written. `finish` makes it the newest; `abandon` leaves no trace of it."""

    def __init__(self, folder: Path, keys: KeyRing, index: int, description: bytes) -> None:
        self.path = snapshot_path(folder, index)
        self._temporary = self.path.with_name(self.path.name + TEMPORARY_SUFFIX)
        self._header = Header.fresh(SNAPSHOT, index, keys)
        self.key = self._header.key
        """Number of the data key that it needs."""
        self._unsynced = 0
        self.size = 0
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self._write(self._header.encode())
            self._add(_DESCRIPTION, description)
        except BaseException:
            self.abandon()
            raise

    def add(self, piece: bytes) -> None:
        """Write one piece of the store."""
        self._add(_PIECE, piece)

    def finish(self) -> Path:
        """Make it durable under its name."""
        self._add(_END, b"")
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self._temporary.rename(self.path)
        sync_folder(self.path.parent)
        return self.path

    def abandon(self) -> None:
        """Remove what was written. May be called at any time, also after `finish` (then it does nothing)."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.unlink(missing_ok=True)

    def _add(self, type: bytes, payload: bytes) -> None:
        self._write(seal(self._header.cipher, self.size, type + zlib.compress(payload, 1)))
        if self._unsynced >= _SYNC_BYTES:
            # In parts, so that the log's own fdatasync never waits behind a whole snapshot.
            os.fdatasync(self._descriptor)
            self._unsynced = 0

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data)
        self.size += len(data)
        self._unsynced += len(data)


class SnapshotReader:
    """One snapshot on disk: its description, and its pieces. Raises DamagedStateError where it can't be trusted."""

    def __init__(self, path: Path, keys: KeyRing) -> None:
        self.path = path
        self._data = path.read_bytes()
        self._header = Header.decode(path, self._data, SNAPSHOT, keys)
        if self._header.number != snapshot_index(path):
            raise damaged(path, 0, f"it is the snapshot of index {self._header.number}")
        self.index = self._header.number
        self.key = self._header.key
        type, self.description, self._first = self._frame(HEADER_BYTES)
        if type != _DESCRIPTION:
            raise damaged(path, HEADER_BYTES, "the description is missing")

    def pieces(self) -> Iterator[bytes]:
        """The pieces of the store, in order."""
        offset = self._first
        while True:
            type, payload, end = self._frame(offset)
            if type == _END:
                if end != len(self._data):
                    raise damaged(self.path, end, "there is more after the end mark")
                return
            if type != _PIECE:
                raise damaged(self.path, offset, f"a frame of unknown type {type!r}")
            yield payload
            offset = end

    def _frame(self, offset: int) -> tuple[bytes, bytes, int]:
        body = body_at(self._data, offset)
        if body is None:
            raise damaged(self.path, offset, "a record does not match its checksum")
        payload = unseal(self.path, self._header.cipher, offset, body)
        try:
            return payload[:1], zlib.decompress(payload[1:]), offset + FRAME_BYTES + len(body)
        except zlib.error:
            raise damaged(self.path, offset, "a record can't be unpacked") from None


def snapshot_path(folder: Path, index: int) -> Path:
    return folder / f"{_PREFIX}{index:016x}"


def snapshot_index(path: Path) -> int:
    try:
        return int(path.name.removeprefix(_PREFIX), 16)
    except ValueError:
        raise damaged(path, 0, "its name is not a snapshot's") from None


def snapshot_paths(folder: Path) -> list[Path]:
    """The complete snapshots in `folder`, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if not path.name.endswith(TEMPORARY_SUFFIX))


def remove_unfinished(folder: Path) -> None:
    """Remove what a crash left of a snapshot that was being written."""
    for path in folder.glob(f"{_PREFIX}*{TEMPORARY_SUFFIX}"):
        path.unlink()


def remove_before(folder: Path, index: int) -> None:
    """Remove the snapshots older than `index`, once that one is durable."""
    gone = [path for path in snapshot_paths(folder) if snapshot_index(path) < index]
    for path in gone:
        path.unlink()
    if gone:
        sync_folder(folder)
