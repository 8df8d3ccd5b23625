"""Several managers on real sockets and disks: they agree, survive one another, and catch up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Config
from swarmcore.errors import FailedPreconditionError, NotLeaderError
from swarmcore.raft.membership import Remove
from swarmcore.replication.snapshots import Limits
from swarmcore.testing.manager_group import GroupMember, manager_group


async def write(member: GroupMember, name: str) -> None:
    def create(tx: object) -> None:
        config = Config(id=name)
        config.spec.annotations.name = name
        tx.config.create(config)  # type: ignore[attr-defined]

    await member.store.update(create)


def has(member: GroupMember, *names: str) -> bool:
    return all(name in member.store.view.config for name in names)


async def test_what_the_leader_writes_is_on_every_manager(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        await write(leader, "a")

        await group.wait(lambda: all(has(member, "a") for member in group.members.values()))
        others = [member for member in group.members.values() if member is not leader]
        with pytest.raises(NotLeaderError):
            await write(others[0], "b")


async def test_when_the_leader_dies_another_one_leads_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        old = await group.leader()
        await write(old, "before")
        await old.stop()

        new = await group.leader(besides=old.node_id)
        await write(new, "after")
        await old.start()

        assert has(new, "before", "after")
        await group.wait(lambda: has(old, "before", "after"))


async def test_a_leader_without_a_majority_acknowledges_nothing(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        for member in group.members.values():
            if member is not leader:
                await member.stop()

        with pytest.raises((NotLeaderError, TimeoutError)):
            async with asyncio.timeout(5):
                await write(leader, "lost")
        assert not has(leader, "lost")
        assert leader.replica.term == 0


async def test_a_manager_that_joins_late_gets_a_snapshot_and_the_rest(tmp_path: Path) -> None:
    limits = Limits(snapshot_entries=50, keep_entries=5)
    async with manager_group(tmp_path, 1, limits) as group:
        leader = await group.leader()
        for number in range(120):
            await write(leader, f"c{number}")
        await group.wait(lambda: leader.replica.snapshot_index > 50)

        late = await group.add("late")
        await group.wait(lambda: len(leader.replica.membership.voters) == 2)
        await write(leader, "last")

        await group.wait(lambda: has(late, "c0", "c119", "last"))
        await late.stop()
        await late.start()
        await group.wait(lambda: late.replica.leader is not None and has(late, "c0", "last"))


async def test_a_removed_manager_does_not_come_back_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        gone = next(member for member in group.members.values() if member is not leader)
        id = gone.replica.raft_id
        await leader.replica.change_membership(Remove(id))

        await write(leader, "a")
        assert id not in leader.replica.membership
        assert leader.replica.membership.was_removed(id)
        with pytest.raises(FailedPreconditionError, match="there is no member"):
            await leader.replica.change_membership(Remove(id))


async def test_a_manager_at_another_address_is_found_again(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        moved = next(member for member in group.members.values() if member is not leader)
        await moved.stop()
        moved._port = 0
        await moved.start(join=leader)
        await write(leader, "a")

        await group.wait(lambda: has(moved, "a"))
        assert leader.replica.membership.members[moved.replica.raft_id].address == moved.address
