"""One member becomes the only one of a new group, and nobody of the old one is heard again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import grpc
import pytest

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.raft_pb2_grpc import RaftStub
from swarmcore.errors import ConfigurationError, FailedPreconditionError, PermissionDeniedError
from swarmcore.raft.membership import AddLearner, Member, Membership, Promote, Remove
from swarmcore.raft.types import Entry, EntryKind, HardState, SnapshotMeta
from swarmcore.replication.groups import GROUP, check_group, group_metadata, is_replacing
from swarmcore.replication.new_group import membership_of
from swarmcore.replication.snapshot_file import SnapshotWriter
from swarmcore.replication.state_folder import State, description, open_state
from swarmcore.testing.killed import killed_at
from swarmcore.testing.manager_group import manager_group


def opened(folder: Path, *, force: bool = False, address: str = "host-1:1") -> State:
    return open_state(
        folder,
        node_id="node-1",
        address=address,
        unlock_key=None,
        bootstrap=True,
        force_new_group=force,
        segment_bytes=1 << 20,
        reserve_bytes=0,
    )


def force(folder: Path) -> None:
    opened(folder, force=True).close()


def of_three(folder: Path) -> Membership:
    """A folder of the first of three voters, whose log goes on behind what is certain."""
    state = opened(folder)
    members = {id: Member(id=id, node_id=f"node-{id}", address=f"host-{id}:1", is_voter=True) for id in (1, 2, 3)}
    membership = Membership(members, 5)
    state.log_file.append(
        [
            Entry(2, 1, EntryKind.MEMBERSHIP, membership.encode()),
            Entry(3, 4, EntryKind.NORMAL, b"certain"),
            Entry(4, 4, EntryKind.NORMAL, b"perhaps"),
            HardState(6, 2, 3),
        ]
    )
    state.close()
    return membership


def test_it_keeps_every_entry_and_its_id_and_is_alone(folder: Path) -> None:
    of_three(folder)

    opened(folder, force=True, address="elsewhere:7").close()
    state = opened(folder)

    membership = membership_of(state.snapshot, state.log)
    assert [entry.data for entry in state.log.between(3, 4)] == [b"certain", b"perhaps"]
    assert membership.members == {1: Member(id=1, node_id="node-1", address="elsewhere:7", is_voter=True)}
    assert all(membership.was_removed(id) for id in (2, 3, 4, 5))
    assert membership.group and membership.replaced == ("",)
    assert (state.hard_state.term, state.hard_state.vote) == (7, 0)
    assert (state.log.last_index, state.log.last_term) == (5, 7)
    state.close()


def test_forcing_again_changes_nothing(folder: Path) -> None:
    of_three(folder)
    opened(folder, force=True).close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    opened(folder, force=True).close()

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_two_groups_made_of_one_are_strangers(folder: Path, tmp_path: Path) -> None:
    of_three(folder)
    groups = []
    for name in ("a", "b"):
        copy = tmp_path / name
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        opened(copy, force=True).close()
        state = opened(copy)
        groups.append(membership_of(state.snapshot, state.log))
        state.close()
    one, other = groups

    with pytest.raises(PermissionDeniedError, match="another group of managers"):
        check_group(group_metadata(one, one.group), other, other.group)


def test_a_log_that_a_snapshot_took_the_place_of_goes_on_behind_it(folder: Path) -> None:
    membership = of_three(folder)
    state = opened(folder)
    snapshot = SnapshotMeta(index=100, term=5, membership=membership)
    SnapshotWriter(folder, state.keys, 100, description(snapshot)).finish()
    state.close()

    for force in (False, True):
        state = opened(folder, force=force)
        assert state.log.last_index == (101 if force else 100)
        state.log_file.append([Entry(state.log.last_index + 1, 9, EntryKind.NORMAL, b"next"), HardState(9, 0, 100)])
        state.close()
        state = opened(folder)
        assert state.log.between(state.log.last_index, state.log.last_index)[0].data == b"next"
        state.close()
        if not force:
            # Back to what the crash left.
            log = next(path for path in folder.iterdir() if path.name.startswith("log"))
            log.unlink()
            of_three_log(folder)


def of_three_log(folder: Path) -> None:
    """The log of `of_three` anew, under the keys that are there."""
    from swarmcore.replication.keys import KeyRing
    from swarmcore.replication.log_file import LogFile

    log_file, _ = LogFile.open(folder, KeyRing.open(folder / "keys.json"))
    log_file.append([Entry(1, 1, EntryKind.NORMAL, b""), Entry(2, 1, EntryKind.NORMAL, b""), HardState(6, 2, 2)])
    log_file.close()


def test_who_was_removed_or_knows_nothing_can_not_force(folder: Path, tmp_path: Path) -> None:
    membership = of_three(folder)
    state = opened(folder)
    without = membership.after(Remove(1))
    assert isinstance(without, Membership)
    state.log_file.append([Entry(5, 6, EntryKind.MEMBERSHIP, without.encode())])
    state.close()
    with pytest.raises(ConfigurationError, match="was removed from its group"):
        opened(folder, force=True)

    joined = tmp_path / "joined"
    options = {"node_id": "node-9", "address": "", "unlock_key": None, "segment_bytes": 1 << 20, "reserve_bytes": 0}
    state = open_state(joined, bootstrap=False, joined_as=9, joined_group="g", **options)  # type: ignore[arg-type]
    assert state.group == "g"
    state.close()
    with pytest.raises(ConfigurationError, match="nothing of the cluster has reached"):
        open_state(joined, bootstrap=False, force_new_group=True, **options)  # type: ignore[arg-type]


def test_killed_at_any_step_it_is_in_the_old_group_or_in_the_new_one(folder: Path, tmp_path: Path) -> None:
    of_three(folder)
    outcomes = set()

    for step in range(40):
        copy = tmp_path / str(step)
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        was_killed = killed_at(step, partial(force, copy))
        state = opened(copy)
        membership = membership_of(state.snapshot, state.log)
        outcomes.add(len(membership.members))
        assert membership.replaced == (() if len(membership.members) == 3 else ("",))
        assert state.log.between(4, 4)[0].data == b"perhaps"
        state.close()
        opened(copy, force=True).close()
        if not was_killed:
            break
    else:
        raise AssertionError("more steps than were tried")

    assert outcomes == {1, 3}


# On the wire


def test_a_member_of_a_replaced_group_is_told_where_the_cluster_went() -> None:
    old = Membership.single("node-1", "host-1:1").after(AddLearner("node-2", "host-2:1"))
    assert isinstance(old, Membership)
    new = old.made_anew(id=1, node_id="node-1", address="host-9:1", group="new")

    with pytest.raises(FailedPreconditionError, match="goes on with the manager at host-9:1"):
        check_group(group_metadata(old, ""), new, new.group)
    with pytest.raises(PermissionDeniedError):
        check_group(group_metadata(new, "new"), old, "")
    check_group(group_metadata(new, "new"), new, "new")
    check_group((), new, "new")
    assert is_replacing(group_metadata(new, "new"), "") and not is_replacing(group_metadata(old, ""), "")


def test_a_group_stays_what_it_is_through_every_change() -> None:
    new = Membership.single("node-1", "a").made_anew(id=1, node_id="node-1", address="a", group="g")
    grown = new.after(AddLearner("node-2", "b"))
    assert isinstance(grown, Membership)
    voting = grown.after(Promote(2))
    assert isinstance(voting, Membership)
    again = voting.made_anew(id=2, node_id="node-2", address="b", group="h")

    assert Membership.decode(again.encode()) == again
    assert (grown.group, voting.replaced, again.replaced) == ("g", ("",), ("", "g"))


async def test_who_comes_back_without_its_log_gets_a_new_id(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        lost = next(member for member in group.members.values() if member is not leader)
        id = lost.replica.raft_id
        await lost.stop()

        async with lost.dial(leader.address) as channel:
            answer = await RaftStub(channel).Join(pb.RaftJoinRequest(addr="127.0.0.1:1"))

        assert answer.raft_id not in (0, id)
        assert leader.replica.membership.was_removed(id)
        assert not leader.replica.membership.is_voter(answer.raft_id)


async def test_a_strange_group_is_refused_at_the_door(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 1) as group:
        leader = await group.leader()
        async with leader.dial(leader.address) as channel:
            call = RaftStub(channel).Deliver(iter(()), metadata=((GROUP, "strange"),))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED or "another group" in str(refused.value.details())
