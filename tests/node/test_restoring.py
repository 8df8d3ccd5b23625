"""A restore happens as a whole, whatever cuts it off; and only into an empty directory."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

import pytest

from swarmcore.api.backup_pb2 import BackupHeader, BackupPart
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.store_pb2 import StoreSnapshotPiece
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.root import RootCA
from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import ConfigurationError
from swarmcore.node.restoring import COMPLETE, UNFINISHED, finish_restore, restore
from swarmcore.node.unlocking import find_secret
from swarmcore.raft.membership import AddLearner, Membership
from swarmcore.replication.backup_file import BackupWriter
from swarmcore.replication.inspection import inspect
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.killed import killed_at

PASSPHRASE = b"correct horse"
NOW = 1_700_000_000.0
UNLOCK = bytes(range(32))


def backup(path: Path, *, unlock_key: bytes = b"", table: str = "task") -> Path:
    """A backup of two managers with one task."""
    root = RootCA.create(now=NOW)
    membership = Membership.single("node-1", "old:1").after(AddLearner("node-2", "old:2"))
    assert isinstance(membership, Membership)
    header = BackupHeader(
        id=path.name,
        index=40,
        term=3,
        membership=membership.encode(),
        cluster_id="cluster-1",
        root_certificate=root.certificate_pem,
        root_key=root.key_pem or b"",
        unlock_key=unlock_key,
        is_confirmed=True,
    )
    piece = StoreSnapshotPiece(table=table, objects=[Task(id="task-1").SerializeToString()])
    writer = BackupWriter(path, PASSPHRASE, scrypt=(4, 8, 1))
    writer.add(BackupPart(header=header))
    writer.add(BackupPart(piece=piece.SerializeToString()))
    writer.add(BackupPart(end=1), is_last=True)
    writer.finish()
    return path


def fresh(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def load(folder: Path, unlock_key: bytes | None = None) -> SecurityConfig:
    security = SecurityConfig.load(
        folder / "certificates",
        SimulatedClock(NOW),
        find_secret=lambda pem: find_secret(folder / "raft", unlock_key, pem),
    )
    assert security is not None
    return security


def test_the_directory_is_that_of_a_new_manager_alone_in_a_new_group(tmp_path: Path) -> None:
    folder, file = fresh(tmp_path / "state"), backup(tmp_path / "b1")

    assert restore(folder, file, PASSPHRASE, address="new:1", now=NOW) is None

    security, found = load(folder), inspect(folder / "raft", None)
    (member,) = found.membership.members.values()
    assert names(folder) == ["certificates", "lock", "raft", "restored.json"]
    assert (security.role, security.cluster_id) == (NodeRole.MANAGER, "cluster-1")
    assert (member.node_id, member.address, member.id) == (security.node_id, "new:1", 3)
    assert security.node_id not in ("node-1", "node-2")
    assert found.membership.was_removed(1) and found.membership.was_removed(2) and found.membership.replaced == ("",)
    assert not found.damage and found.snapshots[0].objects == {"task": 1} and found.last == (40, 3)
    for path in folder.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077 or path.suffix == ".crt" or path.name == "lock", path


def test_managers_that_were_locked_are_locked_from_the_first_byte_on(tmp_path: Path) -> None:
    folder, file = fresh(tmp_path / "state"), backup(tmp_path / "b1", unlock_key=UNLOCK)

    assert restore(folder, file, PASSPHRASE, address="", now=NOW) == UNLOCK

    assert inspect(folder / "raft", UNLOCK).is_locked
    assert load(folder, UNLOCK).cluster_id == "cluster-1"
    with pytest.raises(ConfigurationError, match="node is locked"):
        load(folder)


def test_killed_at_any_step_the_directory_is_empty_or_restored(tmp_path: Path) -> None:
    file = backup(tmp_path / "b1")
    seen = set()

    for step in range(200):
        folder = fresh(tmp_path / f"state-{step}")
        was_killed = killed_at(step, partial(restore, folder, file, PASSPHRASE, address="", now=NOW))
        # Started without the flag:
        finish_restore(folder)
        assert UNFINISHED not in names(folder) and COMPLETE not in names(folder)
        seen.add(tuple(names(folder)))
        # And with it:
        restore(folder, file, PASSPHRASE, address="", now=NOW)
        assert load(folder).cluster_id == "cluster-1"
        assert not inspect(folder / "raft", None).damage
        if not was_killed:
            break
    else:
        raise AssertionError("more steps than were tried")

    assert seen == {("lock",), ("certificates", "lock", "raft", "restored.json")}


def test_killed_again_and_again_while_it_finishes_it_is_restored_in_the_end(tmp_path: Path) -> None:
    file = backup(tmp_path / "b1")
    finished = 0

    for step in range(200):
        folder = fresh(tmp_path / f"state-{step}")
        was_killed = killed_at(step, partial(restore, folder, file, PASSPHRASE, address="", now=NOW))
        if (folder / COMPLETE).exists():
            again = 0
            while killed_at(again, partial(finish_restore, folder)):
                again += 1
            assert load(folder).cluster_id == "cluster-1"
            finished += 1
        if not was_killed:
            break

    assert finished > 2


def test_the_same_backup_again_goes_on_and_another_one_is_refused(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "state")
    restore(folder, backup(tmp_path / "b1"), PASSPHRASE, address="", now=NOW)
    node_id = load(folder).node_id

    restore(folder, tmp_path / "b1", PASSPHRASE, address="", now=NOW)

    assert load(folder).node_id == node_id
    with pytest.raises(ConfigurationError, match="needs an empty state directory"):
        restore(folder, backup(tmp_path / "b2"), PASSPHRASE, address="", now=NOW)


def test_what_this_version_can_not_read_changes_nothing(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "state")

    with pytest.raises(ConfigurationError, match="this version can't read what the backup holds"):
        restore(folder, backup(tmp_path / "b1", table="planet"), PASSPHRASE, address="", now=NOW)

    assert names(folder) == ["lock"]
