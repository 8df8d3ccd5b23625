"""The Raft log on disk: segments of sealed frames, one frame and one `fdatasync` for each batch of records.

Everything here blocks. At run time it is called by the disk thread alone (`disk.py`); `LogFile.open` by whoever starts.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from swarmcore.errors import InternalError, ResourceExhaustedError
from swarmcore.raft.types import Entry, EntryKind, HardState
from swarmcore.replication.damage import damaged
from swarmcore.replication.durable import TEMPORARY_SUFFIX, replace_file, sync_folder, write_all
from swarmcore.replication.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    SEGMENT,
    Header,
    intact_frames,
    is_torn,
    seal,
)
from swarmcore.replication.keys import KeyRing

log = logging.getLogger("swarmcore.replication")

SEGMENT_BYTES = 16 * 1024 * 1024
RESERVE_BYTES = 32 * 1024 * 1024
_PREFIX = "log-"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_RECORD = struct.Struct("<BI")
_HARD_STATE = struct.Struct("<QQQ")
_ENTRY = struct.Struct("<QQB")
_START = struct.Struct("<QQ")
_HARD_STATE_TYPE, _ENTRY_TYPE, _START_TYPE = 1, 2, 3


class DiskFullError(ResourceExhaustedError):
    """The disk takes no more now. Nothing of the batch is on it; reading goes on, and writing once there is space."""


class DiskFailedError(InternalError):
    """The disk refused to make data durable. What it holds is no longer known: the process must end."""


@dataclass(frozen=True, slots=True)
class LogStart:
    """The log begins after this entry, whatever stands before this record: a snapshot took its place."""

    index: int
    term: int


Record: TypeAlias = HardState | Entry | LogStart


@dataclass(frozen=True, slots=True, kw_only=True)
class LogContents:
    """What a log holds: the last hard state, where it starts when a snapshot replaced it, and its entries in order."""

    hard_state: HardState | None
    start: LogStart | None
    entries: list[Entry]


@dataclass(slots=True)
class _Segment:
    path: Path
    sequence: int
    key: int
    size: int
    last_index: int = 0
    """Highest index of any entry in it."""


class LogFile:
    """The segments of one log, open for appending."""

    def __init__(self, folder: Path, keys: KeyRing, *, segment_bytes: int, reserve_bytes: int) -> None:
        self._folder = folder
        self._keys = keys
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._segments: list[_Segment] = []
        self._descriptor = -1
        self._header: Header | None = None
        self._hard_state: HardState | None = None
        self._failed = False
        self._sync: Callable[[int], None] = os.fdatasync
        self.written = 0
        """Bytes appended since this was opened, and what was found then."""

    # Opening

    @classmethod
    def open(
        cls,
        folder: Path,
        keys: KeyRing,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> tuple[LogFile, LogContents]:
        """Read the log in `folder`, cut a torn tail off, and open it for appending.

        Raises DamagedStateError naming file and offset when anything but the tail can't be trusted.
        """
        self = cls(folder, keys, segment_bytes=segment_bytes, reserve_bytes=reserve_bytes)
        for leftover in folder.glob(f"{_PREFIX}*{TEMPORARY_SUFFIX}"):
            leftover.unlink()
        start: LogStart | None = None
        entries: list[Entry] = []
        paths = segment_paths(folder)
        for position, path in enumerate(paths):
            for offset, record in self._read(path, is_last=position == len(paths) - 1):
                match record:
                    case HardState():
                        self._hard_state = record
                    case LogStart():
                        start = record
                        entries = after_start(entries, record)
                    case Entry():
                        if entries and record.index <= entries[-1].index:
                            del entries[max(0, record.index - entries[0].index) :]
                        expected = entries[-1].index + 1 if entries else record.index
                        if record.index != expected:
                            raise damaged(path, offset, f"entry {record.index} follows entry {expected - 1}")
                        entries.append(record)
        if self._segments:
            last = self._segments[-1]
            self._descriptor = os.open(last.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            # A process that was killed between a write and its sync leaves both to be read, and neither durable.
            os.fsync(self._descriptor)
            sync_folder(folder)
        self.written = self.size
        return self, LogContents(hard_state=self._hard_state, start=start, entries=entries)

    def _read(self, path: Path, *, is_last: bool) -> Iterator[tuple[int, Record]]:
        """Records of one segment with the offset of their frame; adds the segment to the list."""
        data = path.read_bytes()
        header = Header.decode(path, data, SEGMENT, self._keys)
        sequence = sequence_of(path)
        if header.number != sequence:
            raise damaged(path, 0, f"it is segment {header.number}")
        if self._segments and self._segments[-1].sequence + 1 != sequence:
            missing = segment_path(self._folder, self._segments[-1].sequence + 1)
            raise damaged(missing, 0, "the file is missing")
        segment = _Segment(path, sequence, header.key, HEADER_BYTES)
        for offset, payload, end in intact_frames(path, data, header.cipher):
            segment.size = end
            for record in decode_records(path, offset, payload):
                if isinstance(record, Entry):
                    segment.last_index = max(segment.last_index, record.index)
                yield offset, record
        if segment.size < len(data):
            if not is_last or not is_torn(data, segment.size):
                raise damaged(path, segment.size, "a record does not match its checksum, and it is no unfinished write")
            self._cut(path, segment.size, len(data))
        self._segments.append(segment)
        self._header = header

    @staticmethod
    def _cut(path: Path, size: int, length: int) -> None:
        """Remove the last write before a crash, which was never acknowledged."""
        log.warning("cut %d bytes of an unfinished write off %s at byte %d", length - size, str(path), size)
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # Writing

    def append(self, records: Sequence[Record]) -> None:
        """Make `records` durable, together.

        Raises DiskFullError when there is no space (nothing was written), DiskFailedError when the disk can't say
        whether they are durable: then the log takes nothing more.
        """
        if self._failed:
            raise DiskFailedError("the raft log failed before; start the manager again on a healthy disk")
        if not records:
            return
        self._append_frame([_encode(record) for record in records])
        top = max((record.index for record in records if isinstance(record, Entry)), default=0)
        self._segments[-1].last_index = max(self._segments[-1].last_index, top)
        for record in records:
            if isinstance(record, HardState):
                self._hard_state = record

    def _append_frame(self, parts: list[bytes]) -> None:
        if not self._segments or self._segments[-1].size >= self._segment_bytes:
            self._rotate()
        segment, header = self._segments[-1], self._header
        assert header is not None
        frame = seal(header.cipher, segment.size, b"".join(parts))
        try:
            write_all(self._descriptor, frame)
        except OSError as error:
            self._take_back(segment, error)
        try:
            self._sync(self._descriptor)
        except OSError as error:
            self._failed = True
            self._forget_unsynced(segment)
            raise DiskFailedError(f"can't make {str(segment.path)!r} durable: {error.strerror}") from error
        segment.size += len(frame)
        self.written += len(frame)

    def _forget_unsynced(self, segment: _Segment) -> None:
        """Cut off what a failed sync was for: it can still be read, and no later sync would make it durable."""
        try:
            os.ftruncate(self._descriptor, segment.size)
        except OSError:
            log.warning("can't cut %s at byte %d after a failed sync", str(segment.path), segment.size)

    def _take_back(self, segment: _Segment, error: OSError) -> None:
        """Cut what a failed write left behind; raises the error that the writer sees."""
        try:
            os.ftruncate(self._descriptor, segment.size)
        except OSError:
            self._failed = True
        if self._failed or error.errno not in FULL:
            self._failed = True
            raise DiskFailedError(f"can't write {str(segment.path)!r}: {error.strerror}") from error
        raise disk_full(self._folder) from error

    def _rotate(self) -> None:
        """Start the next segment. It repeats the hard state, so that older segments can go."""
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        path = segment_path(self._folder, sequence)
        header = Header.fresh(SEGMENT, sequence, self._keys)
        first = header.encode()
        if self._hard_state is not None:
            first += seal(header.cipher, len(first), _encode(self._hard_state))
        try:
            replace_file(path, first)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in FULL and not path.exists():
                raise disk_full(self._folder) from error
            self._failed = True
            raise DiskFailedError(f"can't make {str(path)!r} durable: {error.strerror}") from error
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._header = header
        self._segments.append(_Segment(path, sequence, header.key, len(first)))
        self.written += len(first)

    def compact(self, first_index: int, *, rotate: bool = False) -> None:
        """Delete leading segments that hold no entry from `first_index` on. `rotate` starts a new segment before."""
        if rotate and self._segments and self._segments[-1].size > HEADER_BYTES + FRAME_BYTES:
            self._rotate()
        gone = 0
        while gone < len(self._segments) - 1 and self._segments[gone].last_index < first_index:
            self._segments[gone].path.unlink(missing_ok=True)
            gone += 1
        if gone:
            del self._segments[:gone]
            sync_folder(self._folder)

    # Asking

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def keys_in_use(self) -> frozenset[int]:
        """Numbers of the data keys that its segments need."""
        return frozenset(segment.key for segment in self._segments)

    def has_space(self) -> bool:
        """Whether the disk has more free than the reserve, so that a write can be begun."""
        try:
            usage = os.statvfs(self._folder)
        except OSError:
            return False
        return usage.f_bavail * usage.f_frsize >= self._reserve_bytes

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def disk_full(folder: Path) -> DiskFullError:
    return DiskFullError(
        f"the disk is full: make space under {str(folder)!r}; reading goes on, writing resumes by itself"
    )


def segment_path(folder: Path, sequence: int) -> Path:
    return folder / f"{_PREFIX}{sequence:016x}"


def segment_paths(folder: Path) -> list[Path]:
    """The segments in `folder`, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if not path.name.endswith(TEMPORARY_SUFFIX))


def sequence_of(path: Path) -> int:
    """The number of a segment, which its name says. Raises DamagedStateError."""
    try:
        return int(path.name.removeprefix(_PREFIX), 16)
    except ValueError:
        raise damaged(path, 0, "its name is not a segment's") from None


def after_start(entries: list[Entry], start: LogStart) -> list[Entry]:
    """What stays of `entries` once the log starts at `start`: those behind it, if it is one of them."""
    if entries and entries[0].index <= start.index <= entries[-1].index:
        position = start.index - entries[0].index
        if entries[position].term == start.term:
            return entries[position + 1 :]
    return []


def _encode(record: Record) -> bytes:
    match record:
        case HardState(term, vote, commit):
            return _RECORD.pack(_HARD_STATE_TYPE, _HARD_STATE.size) + _HARD_STATE.pack(term, vote, commit)
        case Entry(index, term, kind, data):
            head = _RECORD.pack(_ENTRY_TYPE, _ENTRY.size + len(data))
            return b"".join((head, _ENTRY.pack(index, term, kind), data))
        case LogStart(index, term):
            return _RECORD.pack(_START_TYPE, _START.size) + _START.pack(index, term)


def decode_records(path: Path, offset: int, payload: bytes) -> Iterator[Record]:
    """The records in the frame at `offset` of `path`. Raises DamagedStateError."""
    at = 0
    try:
        while at < len(payload):
            type, length = _RECORD.unpack_from(payload, at)
            at += _RECORD.size
            data = payload[at : at + length]
            at += length
            if len(data) != length:
                raise damaged(path, offset, "a record is cut short")
            if type == _HARD_STATE_TYPE:
                yield HardState(*_HARD_STATE.unpack(data))
            elif type == _ENTRY_TYPE:
                index, term, kind = _ENTRY.unpack_from(data)
                yield Entry(index, term, EntryKind(kind), data[_ENTRY.size :])
            elif type == _START_TYPE:
                yield LogStart(*_START.unpack(data))
            else:
                raise damaged(path, offset, f"record type {type} is not known to this version")
    except (struct.error, ValueError):
        raise damaged(path, offset, "a record can't be read") from None
