"""The folder with everything that one manager must not forget: key file, member file, log segments, snapshots.

Opened once, by whoever starts a `Replica`; everything here blocks.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmcore.errors import ConfigurationError
from swarmcore.raft.log import RaftLog, recovered
from swarmcore.raft.membership import Membership
from swarmcore.raft.types import NO_ONE, NOTHING, Entry, EntryKind, HardState, SnapshotMeta
from swarmcore.replication.damage import damaged, what_to_do
from swarmcore.replication.durable import TEMPORARY_SUFFIX, replace_file, sync_folder
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import (
    RESERVE_BYTES,
    SEGMENT_BYTES,
    LogContents,
    LogFile,
    LogStart,
    Record,
    segment_path,
    segment_paths,
)
from swarmcore.replication.new_group import make_anew, membership_of
from swarmcore.replication.snapshot_file import SnapshotReader, remove_before, remove_unfinished, snapshot_paths

KEY_FILE = "keys.json"
MEMBER_FILE = "member.json"
FOUNDER_ID = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What was found: the open files, and the values that the Raft machine starts with."""

    raft_id: int
    keys: KeyRing
    log_file: LogFile
    hard_state: HardState
    snapshot: SnapshotMeta
    snapshot_file: SnapshotReader | None
    log: RaftLog
    lock: FolderLock
    group: str = ""
    """The group that this member was let into; its log says so once it holds a membership."""

    def close(self) -> None:
        """Let another process have the folder."""
        self.log_file.close()
        self.lock.close()


class FolderLock:
    """Held while a folder is open, so that no two processes write into it. It ends with the process."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigurationError(
                f"the state in {str(folder)!r} is in use by another process: stop that one, or use another directory"
            ) from None

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_state(
    folder: Path,
    *,
    node_id: str,
    address: str,
    unlock_key: bytes | None,
    bootstrap: bool,
    joined_as: int | None = None,
    joined_group: str = "",
    force_new_group: bool = False,
    segment_bytes: int,
    reserve_bytes: int,
) -> State:
    """Read `folder`, made first when it is not there: with `bootstrap` a cluster of this manager alone, with
    `joined_as` the empty log of a member of that id in `joined_group`, which gets everything from its leader.
    `force_new_group` leaves this manager alone in a group of its own, with all that it has.

    Raises DamagedStateError when something in it can't be trusted, ConfigurationError when it is another node's, is
    locked, or can't be used at all.
    """
    lock: FolderLock | None = None
    log_file: LogFile | None = None
    try:
        if not has_state(folder):
            if bootstrap:
                membership = Membership.single(node_id, address)
                first: list[Record] = [Entry(1, 1, EntryKind.MEMBERSHIP, membership.encode()), HardState(1, NO_ONE, 1)]
                _create(folder, node_id, FOUNDER_ID, first, unlock_key)
            elif joined_as is not None:
                _create(folder, node_id, joined_as, [HardState(0, NO_ONE, 0)], unlock_key, group=joined_group)
            else:
                raise gone(folder)
        lock = FolderLock(folder)
        keys = KeyRing.open(folder / KEY_FILE, unlock_key)
        # What a kill left of a change may hold the keys in the open, in a folder that is locked.
        (folder / (KEY_FILE + TEMPORARY_SUFFIX)).unlink(missing_ok=True)
        raft_id = _read_member(folder / MEMBER_FILE, node_id)
        remove_unfinished(folder)
        snapshot, snapshot_file = _newest_snapshot(folder, keys)
        log_file, contents = LogFile.open(folder, keys, segment_bytes=segment_bytes, reserve_bytes=reserve_bytes)
        hard_state, log = checked(folder, contents, snapshot, raft_id)
        if contents.entries and not log.has(contents.entries[-1].index, contents.entries[-1].term):
            # A crash came between a received snapshot and this record; later entries would not fit those before.
            log_file.append([LogStart(snapshot.index, snapshot.term), hard_state])
        if force_new_group:
            hard_state = make_anew(
                log_file, hard_state, log, snapshot, raft_id=raft_id, node_id=node_id, address=address
            )
    except BaseException as error:
        if log_file is not None:
            log_file.close()
        if lock is not None:
            lock.close()
        if isinstance(error, OSError):
            raise ConfigurationError(
                f"can't use the state in {_of(error, folder)!r}: {error.strerror or error}"
            ) from error
        raise
    return State(
        raft_id=raft_id,
        keys=keys,
        log_file=log_file,
        hard_state=hard_state,
        snapshot=snapshot,
        snapshot_file=snapshot_file,
        log=log,
        lock=lock,
        group=_read_group(folder / MEMBER_FILE),
    )


def read_membership(folder: Path, node_id: str, unlock_key: bytes | None) -> Membership:
    """Who belongs to the group, as the log of the manager in `folder` says; raises as `open_state`."""
    state = open_state(
        folder,
        node_id=node_id,
        address="",
        unlock_key=unlock_key,
        bootstrap=False,
        segment_bytes=SEGMENT_BYTES,
        reserve_bytes=RESERVE_BYTES,
    )
    try:
        return membership_of(state.snapshot, state.log)
    finally:
        state.close()


def read_identity_keys(folder: Path, unlock_key: bytes | None) -> list[bytes]:
    """What the private key of the manager in `folder` may be sealed with, newest first; raises as `open_state`."""
    try:
        return KeyRing.open(folder / KEY_FILE, unlock_key).identity_keys
    except FileNotFoundError:
        raise damaged(folder / KEY_FILE, 0, "the file is missing") from None
    except OSError as error:
        raise ConfigurationError(f"can't use the state in {_of(error, folder)!r}: {error.strerror or error}") from error


def _of(error: OSError, folder: Path) -> str:
    """Which file an error is about, where it says so."""
    return str(error.filename or folder)


def gone(folder: Path, more: str = "") -> ConfigurationError:
    """The error of a manager that has lost its log: with an empty one it could vote away what it had agreed to."""
    return ConfigurationError(
        f"there is no raft state in {str(folder)!r}, and a manager without its log may not vote: put the folder back; "
        f"if it is lost, {what_to_do(folder.parent)}{more}"
    )


def has_state(folder: Path) -> bool:
    """Whether a manager keeps its state there; raises DamagedStateError where part of it is gone."""
    if (folder / KEY_FILE).exists():
        return True
    if folder.exists() and (segment_paths(folder) or snapshot_paths(folder)):
        raise damaged(folder / KEY_FILE, 0, "the file is missing")
    return False


def _create(
    folder: Path, node_id: str, raft_id: int, log: Sequence[Record], unlock_key: bytes | None, *, group: str = ""
) -> None:
    """Make the folder beside and rename it, so that it is never there in part."""
    new = folder.with_name(folder.name + TEMPORARY_SUFFIX)
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700, parents=True)
    # The key of who joins waited on the disk for its certificate, before anyone could say that managers are locked.
    keys = KeyRing.create(new / KEY_FILE, unlock_key, is_identity_exposed=raft_id != FOUNDER_ID)
    write_member(new, node_id, raft_id, group)
    log_file, _ = LogFile.open(new, keys)
    log_file.append(log)
    log_file.close()
    new.rename(folder)
    sync_folder(folder.parent)


def write_member(folder: Path, node_id: str, raft_id: int, group: str) -> None:
    """Note whose state `folder` is."""
    file = {"format": 1, "node_id": node_id, "raft_id": raft_id, "group": group}
    replace_file(folder / MEMBER_FILE, json.dumps(file).encode() + b"\n")


def _read_group(path: Path) -> str:
    return str(json.loads(path.read_bytes()).get("group", ""))


def _read_member(path: Path, node_id: str) -> int:
    try:
        file = json.loads(path.read_bytes())
        owner, raft_id = str(file["node_id"]), int(file["raft_id"])
    except FileNotFoundError:
        raise damaged(path, 0, "the file is missing") from None
    except (ValueError, KeyError, TypeError):
        raise damaged(path, 0, "it can't be read") from None
    if owner != node_id:
        raise ConfigurationError(
            f"the raft state in {str(path.parent)!r} is that of node {owner!r}, and this node is {node_id!r}: "
            "start with the state directory that belongs to it"
        )
    return raft_id


def _newest_snapshot(folder: Path, keys: KeyRing) -> tuple[SnapshotMeta, SnapshotReader | None]:
    paths = snapshot_paths(folder)
    if not paths:
        return NOTHING, None
    reader = SnapshotReader(paths[-1], keys)
    # What a crash kept from being removed when the newest one was finished.
    remove_before(folder, reader.index)
    return describe(reader), reader


def description(snapshot: SnapshotMeta) -> bytes:
    """What stands in a snapshot file about itself."""
    return json.dumps({"term": snapshot.term, "membership": snapshot.membership.encode().decode()}).encode()


def describe(reader: SnapshotReader) -> SnapshotMeta:
    """What a snapshot file says about itself. Raises DamagedStateError."""
    try:
        file = json.loads(reader.description)
        membership = Membership.decode(file["membership"])
        return SnapshotMeta(index=reader.index, term=int(file["term"]), membership=membership)
    except (ValueError, KeyError, TypeError):
        raise damaged(reader.path, 0, "its description can't be read") from None


def checked(
    folder: Path, contents: LogContents, snapshot: SnapshotMeta, raft_id: int = FOUNDER_ID
) -> tuple[HardState, RaftLog]:
    """Read the log against its snapshot, once they are found to agree."""
    paths = segment_paths(folder)
    if not paths or contents.hard_state is None:
        raise damaged(paths[-1] if paths else segment_path(folder, 1), 0, "the log is missing")
    where, end = paths[-1], paths[-1].stat().st_size
    if contents.start is not None and contents.start.index > snapshot.index:
        raise damaged(where, end, f"the snapshot of entry {contents.start.index}, which it follows, is missing")
    # Whoever joined may be stopped before the first entry comes; a founder's log begins with one.
    if not contents.entries and not snapshot.index and (raft_id == FOUNDER_ID or contents.hard_state.commit):
        raise damaged(where, end, "the log is empty")
    try:
        log = recovered(snapshot.index, snapshot.term, contents.entries)
        for entry in contents.entries:
            if entry.kind is EntryKind.MEMBERSHIP:
                Membership.decode(entry.data)
    except ValueError as error:
        raise damaged(paths[0], 0, str(error)) from None
    if contents.hard_state.commit > log.last_index:
        raise damaged(where, end, f"entry {contents.hard_state.commit}, which was committed, is missing")
    return contents.hard_state, log
