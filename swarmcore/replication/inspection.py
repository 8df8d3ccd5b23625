"""What is in a manager's folder, read without changing anything: for `swarmctl raft dump` and `verify`.

Opening a folder stops at the first damage; this goes on behind it and lists all. Also of a manager that runs: then the
end of its log may be a write that is under way. Everything here blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from swarmcore.api.store_pb2 import StoreSnapshotPiece
from swarmcore.errors import DamagedStateError
from swarmcore.raft.log import RaftLog
from swarmcore.raft.membership import Membership
from swarmcore.raft.types import NOTHING, Entry, EntryKind, HardState, SnapshotMeta
from swarmcore.replication.damage import DamagedFileError, damaged
from swarmcore.replication.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    SEGMENT,
    Header,
    body_at,
    is_torn,
    next_frame,
    unseal,
)
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import (
    LogContents,
    LogStart,
    Record,
    after_start,
    decode_records,
    segment_path,
    segment_paths,
    sequence_of,
)
from swarmcore.replication.new_group import membership_of
from swarmcore.replication.snapshot_file import SnapshotReader, snapshot_paths
from swarmcore.replication.state_folder import KEY_FILE, MEMBER_FILE, checked, describe

TRIES_IN_USE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One place that can't be trusted."""

    path: Path
    offset: int
    what: str


@dataclass(slots=True, kw_only=True)
class SegmentFound:
    """One file of the log."""

    path: Path
    size: int
    key: int = 0
    frames: int = 0
    first_index: int = 0
    last_index: int = 0
    unfinished_at: int = -1
    """Where a write begins that a crash cut short; the next start removes it."""


@dataclass(slots=True, kw_only=True)
class SnapshotFound:
    """One snapshot."""

    path: Path
    size: int
    key: int
    meta: SnapshotMeta
    objects: dict[str, int] = field(default_factory=dict)
    """How many there are, by table."""


@dataclass(slots=True, kw_only=True)
class Inspection:
    """Everything that was found. Where there is `damage`, the rest is what could be read besides."""

    folder: Path
    is_in_use: bool
    node_id: str = ""
    raft_id: int = 0
    group: str = ""
    is_locked: bool = False
    current_key: int = 0
    segments: list[SegmentFound] = field(default_factory=list)
    snapshots: list[SnapshotFound] = field(default_factory=list)
    hard_state: HardState | None = None
    start: LogStart | None = None
    entries: list[Entry] = field(default_factory=list)
    membership: Membership = field(default_factory=Membership)
    last: tuple[int, int] = (0, 0)
    """Index and term of the newest entry; of two managers the one where the term, then the index is higher has more."""
    damage: list[Damage] = field(default_factory=list)

    def note(self, error: DamagedStateError) -> None:
        assert isinstance(error, DamagedFileError)
        self.damage.append(Damage(path=error.path, offset=error.offset, what=error.what))


def inspect(folder: Path, unlock_key: bytes | None) -> Inspection:
    """Read all of `folder`, the `raft` folder of a state directory.

    Raises ConfigurationError where it is locked and `unlock_key` is not the one, OSError where it can't be read.
    """
    found = _inspect(folder, unlock_key)
    for _ in range(TRIES_IN_USE - 1):
        if not (found.is_in_use and found.damage):
            break
        # A snapshot may have taken the place of files between two looks; real damage is there the next time too.
        found = _inspect(folder, unlock_key)
    return found


def _inspect(folder: Path, unlock_key: bytes | None) -> Inspection:
    found = Inspection(folder=folder, is_in_use=is_in_use(folder))
    _read_member(found)
    try:
        keys = _keys(found, unlock_key)
    except DamagedStateError as error:
        # Without its keys there is nothing to read; what the disk did to the rest still shows in the checksums.
        found.note(error)
        for path in segment_paths(folder):
            _check_frames(found, path)
        return found
    for path in snapshot_paths(folder):
        _read_snapshot(found, path, keys)
    paths = segment_paths(folder)
    for position, path in enumerate(paths):
        _read_segment(found, path, keys, is_last=position == len(paths) - 1)
    _judge(found)
    return found


def is_in_use(folder: Path) -> bool:
    """Whether a process has the folder open. It is not locked to find out: that could keep one from starting."""
    try:
        wanted = folder.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    return any(" FLOCK " in line and f":{wanted} " in line for line in locks)


def _read_member(found: Inspection) -> None:
    path = found.folder / MEMBER_FILE
    try:
        file = json.loads(path.read_bytes())
        found.node_id, found.raft_id = str(file["node_id"]), int(file["raft_id"])
        found.group = str(file.get("group", ""))
    except FileNotFoundError:
        found.note(damaged(path, 0, "the file is missing"))
    except (ValueError, KeyError, TypeError, AttributeError):
        found.note(damaged(path, 0, "it can't be read"))


def _keys(found: Inspection, unlock_key: bytes | None) -> KeyRing:
    path = found.folder / KEY_FILE
    try:
        keys = KeyRing.open(path, unlock_key)
    except FileNotFoundError:
        raise damaged(path, 0, "the file is missing") from None
    found.is_locked, found.current_key = keys.is_locked, keys.current
    return keys


def _read_snapshot(found: Inspection, path: Path, keys: KeyRing) -> None:
    try:
        reader = SnapshotReader(path, keys)
        size = path.stat().st_size
        snapshot = SnapshotFound(path=path, size=size, key=reader.key, meta=describe(reader))
        for data in reader.pieces():
            piece = StoreSnapshotPiece.FromString(data)
            snapshot.objects[piece.table] = snapshot.objects.get(piece.table, 0) + len(piece.objects)
        found.snapshots.append(snapshot)
    except FileNotFoundError:
        return  # a newer one took its place meanwhile
    except DecodeError:
        found.note(damaged(path, 0, "a piece of the store can't be read"))
    except DamagedStateError as error:
        found.note(error)


def _read_segment(found: Inspection, path: Path, keys: KeyRing, *, is_last: bool) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return  # a snapshot took its place meanwhile
    segment = SegmentFound(path=path, size=len(data))
    before = found.segments[-1].path if found.segments else None
    found.segments.append(segment)
    try:
        number = sequence_of(path)
        header = Header.decode(path, data, SEGMENT, keys)
        segment.key = header.key
        if header.number != number:
            raise damaged(path, 0, f"it is segment {header.number}")
        if before is not None and sequence_of(before) + 1 != number:
            found.note(damaged(segment_path(found.folder, sequence_of(before) + 1), 0, "the file is missing"))
    except DamagedStateError as error:
        found.note(error)
        _check_frames(found, path)
        return
    for offset, payload in _frames(found, segment, data, header.cipher, is_last=is_last):
        try:
            for record in decode_records(path, offset, payload):
                _take(found, segment, offset, record)
        except DamagedStateError as error:
            found.note(error)


def _frames(
    found: Inspection, segment: SegmentFound, data: bytes, cipher: AESGCM | None, *, is_last: bool
) -> Iterator[tuple[int, bytes]]:
    """Offset and payload of each frame that is whole; what is between them is noted. No cipher: no payload."""
    offset = HEADER_BYTES
    while offset < len(data):
        body = body_at(data, offset)
        if body is None:
            following = next_frame(data, offset)
            if following is None and is_last and is_torn(data, offset):
                segment.unfinished_at = offset
                return
            what = "a record does not match its checksum, and it is no unfinished write"
            found.note(damaged(segment.path, offset, what))
            if following is None:
                return
            offset = following
            continue
        segment.frames += 1
        try:
            yield offset, b"" if cipher is None else unseal(segment.path, cipher, offset, body)
        except DamagedStateError as error:
            found.note(error)
        offset += FRAME_BYTES + len(body)


def _check_frames(found: Inspection, path: Path) -> None:
    """Look at the checksums alone, which need no key."""
    data = path.read_bytes()
    segment = SegmentFound(path=path, size=len(data))
    for _ in _frames(found, segment, data, None, is_last=True):
        pass


def _take(found: Inspection, segment: SegmentFound, offset: int, record: Record) -> None:
    """As `LogFile.open` does, and on behind what does not fit."""
    match record:
        case HardState():
            found.hard_state = record
        case LogStart():
            found.start = record
            found.entries = after_start(found.entries, record)
        case Entry():
            entries = found.entries
            if entries and record.index <= entries[-1].index:
                del entries[max(0, record.index - entries[0].index) :]
            expected = entries[-1].index + 1 if entries else record.index
            if record.index != expected:
                what = f"entry {record.index} follows entry {expected - 1}"
                found.note(damaged(segment.path, offset, what))
                entries.clear()
            entries.append(record)
            segment.first_index = segment.first_index or record.index
            segment.last_index = max(segment.last_index, record.index)
            if record.kind is EntryKind.MEMBERSHIP:
                try:
                    Membership.decode(record.data)
                except ValueError:
                    found.note(damaged(segment.path, offset, f"the membership of entry {record.index} can't be read"))


def _judge(found: Inspection) -> None:
    """Log and snapshot together, as a start would."""
    snapshot = found.snapshots[-1].meta if found.snapshots else NOTHING
    contents = LogContents(hard_state=found.hard_state, start=found.start, entries=found.entries)
    log: RaftLog | None = None
    if not found.damage:
        try:
            _, log = checked(found.folder, contents, snapshot, found.raft_id)
        except DamagedStateError as error:
            found.note(error)
    if log is None:
        log = RaftLog(found.entries[0].index - 1, 0, found.entries) if found.entries else RaftLog(0, 0)
    try:
        found.membership = membership_of(snapshot, log)
    except ValueError:
        found.membership = snapshot.membership
    own = found.membership.members.get(found.raft_id)
    if found.node_id and own is not None and own.node_id != found.node_id:
        what = f"it names node {found.node_id}, and the log node {own.node_id}"
        found.note(damaged(found.folder / MEMBER_FILE, 0, what))
    found.group = found.membership.group if found.membership.members else found.group
    found.last = max((log.last_index, log.last_term), (snapshot.index, snapshot.term))
