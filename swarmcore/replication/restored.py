"""The folder of a manager that begins a new group with what a backup holds. Everything here blocks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError

from swarmcore.api.ids import new_id
from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.raft.membership import Membership
from swarmcore.raft.types import NO_ONE, HardState, SnapshotMeta
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import LogFile, LogStart
from swarmcore.replication.snapshot_file import SnapshotWriter
from swarmcore.replication.state_folder import KEY_FILE, description, write_member
from swarmcore.store.store import Store


def write_restored(
    folder: Path,
    *,
    node_id: str,
    address: str,
    unlock_key: bytes | None,
    index: int,
    term: int,
    membership: bytes,
    pieces: Iterable[bytes],
) -> KeyRing:
    """Make `folder`, whose manager is alone in a new group: its snapshot is the backup, its log begins after that.

    `membership` is that of the group which the backup comes from: its members are out for good. Raises
    ConfigurationError where this version can't read what the backup holds.
    """
    folder.mkdir(mode=0o700)
    keys = KeyRing.create(folder / KEY_FILE, unlock_key)
    log_file, _ = LogFile.open(folder, keys)
    try:
        old = Membership.decode(membership)
        new = old.made_anew(id=old.last_id + 1, node_id=node_id, address=address, group=new_id())
        write_member(folder, node_id, new.last_id, new.group)
        snapshot = SnapshotMeta(index=index, term=term, membership=new)
        writer = SnapshotWriter(folder, keys, index, description(snapshot))
        try:
            trial = Store().restoring()
            for piece in pieces:
                trial.add(piece)
                writer.add(piece)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        log_file.append([LogStart(index, term), HardState(term, NO_ONE, index)])
    except (ValueError, DecodeError, DamagedStateError) as error:
        raise ConfigurationError(
            f"this version can't read what the backup holds ({error}): use the newer one"
        ) from None
    finally:
        log_file.close()
    return keys
