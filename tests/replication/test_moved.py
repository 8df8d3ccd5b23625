"""A manager whose address changed is found by members whose log does not say so yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Config
from swarmcore.replication.snapshots import Limits
from swarmcore.store.store import Store
from swarmcore.testing.manager_group import ManagerGroup, manager_group
from swarmcore.testing.ports import free_port

SNAPSHOT_ENTRIES = 5


async def _write(store: Store, name: str) -> None:
    config = Config(id=name)
    config.spec.annotations.name = name
    await store.update(lambda tx: tx.config.create(config))


async def _move(group: ManagerGroup, node_id: str) -> None:
    member = group.members[node_id]
    await member.stop()
    member._port = free_port()
    await member.start()


@pytest.mark.parametrize("lagging", [False, True])
async def test_who_gets_a_snapshot_from_before_the_leader_moved_finds_it(tmp_path: Path, lagging: bool) -> None:
    limits = Limits(snapshot_entries=SNAPSHOT_ENTRIES, keep_entries=1)
    async with manager_group(tmp_path, 1, limits) as group:
        leader = await group.leader()
        for number in range(SNAPSHOT_ENTRIES + 1):
            await _write(leader.store, f"before-{number}")
        await group.wait(lambda: leader.replica.snapshot_index > 0)
        await _move(group, leader.node_id)
        assert (await group.leader()) is leader
        await group.wait(lambda: leader.replica.membership.members[leader.replica.raft_id].address == leader.address)

        late = await group.add("late")
        if lagging:
            # What its first start was told of addresses is gone then: it knows what is on its disk.
            await late.stop()
            await late.start()

        await group.wait(lambda: len(leader.replica.membership.voters) == 2)
        await group.wait(lambda: len(late.store.view.config) == SNAPSHOT_ENTRIES + 1)
