"""Snapshots on disk: what the log said up to an index, so that the log before it can go.

The first frame is the description, the last an empty end mark, and those between are pieces of the store. A snapshot is
written beside and renamed when it is durable: one that has its name is complete. Everything here blocks.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from swarmcore.errors import DamagedStateError
from swarmcore.replication.damage import damaged
from swarmcore.replication.durable import TEMPORARY_SUFFIX, sync_folder, write_all
from swarmcore.replication.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    SNAPSHOT,
    Header,
    body_in,
    frames_by,
    seal,
    unseal,
)
from swarmcore.replication.keys import KeyRing

_PREFIX = "snapshot-"
_RECEIVED_SUFFIX = ".part"
_UNFINISHED = (TEMPORARY_SUFFIX, _RECEIVED_SUFFIX)
_SYNC_BYTES = 4 * 1024 * 1024
_DESCRIPTION, _PIECE, _END = b"\x01", b"\x02", b"\x03"


class SnapshotWriter:
    """One snapshot being written. `finish` makes it the newest; `abandon` leaves no trace of it.

    One that is received has the name of its `transfer`: after `pause` another writer goes on with it, also in another
    process. Only what is intact counts then, and only if it belongs to the same transfer and the data key of now.
    """

    def __init__(self, folder: Path, keys: KeyRing, index: int, description: bytes, *, transfer: str = "") -> None:
        self.path = snapshot_path(folder, index)
        self._temporary = received_path(folder, index, transfer) if transfer else _temporary(self.path)
        found = _received(self._temporary, keys, description) if transfer else None
        self._header = found.header if found is not None else Header.fresh(SNAPSHOT, index, keys)
        self.key = self._header.key
        """Number of the data key that it needs."""
        self.pieces = found.pieces if found is not None else 0
        """So many pieces are written."""
        self.size = found.size if found is not None else 0
        self._unsynced = self.size
        begin = 0 if found is not None else os.O_CREAT | os.O_TRUNC
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | begin, 0o600)
        try:
            if found is not None:
                os.ftruncate(self._descriptor, self.size)
            else:
                self._write(self._header.encode())
                self._add(_DESCRIPTION, description)
        except BaseException:
            self.abandon()
            raise

    def add(self, piece: bytes) -> None:
        """Write one piece of the store."""
        self._add(_PIECE, piece)
        self.pieces += 1

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

    def pause(self) -> None:
        """Leave what was received where another writer of the same transfer finds it; as `abandon`, at any time."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

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


class _File:
    """A file that is read a frame at a time: it may be much larger than memory, and be removed meanwhile."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Readers are left in the middle by transfers that break off: whoever lets go of one closes it.
        self.close = weakref.finalize(self, os.close, self._descriptor)
        self.close.atexit = False
        self.size = os.fstat(self._descriptor).st_size

    def read(self, length: int, offset: int) -> memoryview:
        return memoryview(os.pread(self._descriptor, length, offset))

    def body(self, offset: int) -> memoryview | None:
        """The body of the frame at `offset`; None when there is no whole, intact one."""
        return body_in(self.read, self.size, offset)


class SnapshotReader:
    """One snapshot on disk: its description, and its pieces. Raises DamagedStateError where it can't be trusted.

    One piece is in memory at a time. Nothing of it is given out before its checksum and its seal are found right; that
    the whole is there is known when the last piece has been read.
    """

    def __init__(self, path: Path, keys: KeyRing) -> None:
        self.path = path
        self._file = _File(path)
        self._header = Header.decode(path, bytes(self._file.read(HEADER_BYTES, 0)), SNAPSHOT, keys)
        self.transfer = self._header.salt
        """Which file this is: no other one has it."""
        if self._header.number != snapshot_index(path):
            raise damaged(path, 0, f"it is the snapshot of index {self._header.number}")
        self.index = self._header.number
        self.key = self._header.key
        type, self.description, self._first = self._frame(HEADER_BYTES)
        if type != _DESCRIPTION:
            raise damaged(path, HEADER_BYTES, "the description is missing")

    def pieces(self, first: int = 0) -> Iterator[bytes]:
        """The pieces of the store, in order, from the one of that number on."""
        offset = self._first
        for _ in range(first):
            body = self._body(offset)
            offset += FRAME_BYTES + len(body)
        while True:
            type, payload, end = self._frame(offset)
            if type == _END:
                if end != self._file.size:
                    raise damaged(self.path, end, "there is more after the end mark")
                return
            if type != _PIECE:
                raise damaged(self.path, offset, f"a frame of unknown type {type!r}")
            yield payload
            offset = end

    def close(self) -> None:
        """Let the file go; no piece can be read any more. What nobody refers to closes by itself."""
        self._file.close()

    def _body(self, offset: int) -> memoryview:
        body = self._file.body(offset)
        if body is None:
            raise damaged(self.path, offset, "a record does not match its checksum")
        return body

    def _frame(self, offset: int) -> tuple[bytes, bytes, int]:
        body = self._body(offset)
        payload = unseal(self.path, self._header.cipher, offset, body)
        try:
            return payload[:1], zlib.decompress(payload[1:]), offset + FRAME_BYTES + len(body)
        except zlib.error:
            raise damaged(self.path, offset, "a record can't be unpacked") from None


class _Received(NamedTuple):
    header: Header
    pieces: int
    size: int


def _received(path: Path, keys: KeyRing, description: bytes) -> _Received | None:
    """What is intact of a snapshot that was being received; None when there is nothing to go on with."""
    try:
        file = _File(path)
        header = Header.decode(path, bytes(file.read(HEADER_BYTES, 0)), SNAPSHOT, keys)
        if header.key != keys.current:
            return None
        pieces, size = -1, HEADER_BYTES
        for _, payload, end in frames_by(path, file.body, header.cipher):
            is_first = pieces < 0
            if payload[:1] != (_DESCRIPTION if is_first else _PIECE):
                break
            if is_first and zlib.decompress(payload[1:]) != description:
                return None
            pieces, size = pieces + 1, end
    except (FileNotFoundError, DamagedStateError, zlib.error):
        return None
    return _Received(header, pieces, size) if pieces >= 0 else None


def received_pieces(folder: Path, keys: KeyRing, index: int, description: bytes, transfer: str) -> int:
    """How many pieces a writer of this transfer would go on from."""
    found = _received(received_path(folder, index, transfer), keys, description)
    return 0 if found is None else found.pieces


def remove_received(folder: Path, *, besides: Path | None = None) -> None:
    """Remove what is left of transfers that nobody goes on with."""
    for path in list(folder.glob(f"{_PREFIX}*{_RECEIVED_SUFFIX}")):
        if path != besides:
            path.unlink(missing_ok=True)


def received_path(folder: Path, index: int, transfer: str) -> Path:
    return folder / f"{_PREFIX}{index:016x}.{transfer}{_RECEIVED_SUFFIX}"


def snapshot_path(folder: Path, index: int) -> Path:
    return folder / f"{_PREFIX}{index:016x}"


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def snapshot_index(path: Path) -> int:
    try:
        return int(path.name.removeprefix(_PREFIX), 16)
    except ValueError:
        raise damaged(path, 0, "its name is not a snapshot's") from None


def snapshot_paths(folder: Path) -> list[Path]:
    """The complete snapshots in `folder`, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if not path.name.endswith(_UNFINISHED))


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
