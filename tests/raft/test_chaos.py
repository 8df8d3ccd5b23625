"""Random scenarios: members crash, links break, disks are slow, messages get lost, doubled and out of order.

The group checks at each step what must always hold; here is checked that nothing agreed is lost, and that the group
works again once it is left in peace.
"""

from __future__ import annotations

import pytest

from swarmcore.raft.events import CampaignDemanded, Proposed, ReadDemanded, Ticked, TransferDemanded
from swarmcore.raft.types import Settings
from swarmcore.testing.raft_group import Group


def disturb(group: Group, number: int) -> None:
    chance = group.chance
    id = chance.choice(list(group.members))
    match chance.randrange(14):
        case 0:
            group.isolate(id)
        case 1:
            group.heal()
        case 2:
            group.members[id].is_disk_slow = True
        case 3:
            for one in group.members:
                group.members[one].is_disk_slow = False
                group.write(one)
        case 4:
            group.restart(id)
        case 5:
            group.step(id, CampaignDemanded())
        case 6:
            group.step(id, TransferDemanded(chance.choice(list(group.members))))
        case 7:
            group.step(id, ReadDemanded(number))
        case 8 if group.members[id].applied_index > group[id].snapshot.index:
            if not group.members[id].unwritten:
                group.snapshot(id, keep=chance.randrange(3))
        case 9 if group.network:
            group.network.append(chance.choice(group.network))
        case 10 if group.network:
            group.deliver_one(is_lost=True)
        case 11:
            group.network.rotate(chance.randrange(5))
        case _:
            for one in list(group.members):
                group.step(one, Ticked())


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_nothing_agreed_is_lost(seed: int) -> None:
    group = Group(*range(1, 4 + seed % 3), seed=seed, settings=Settings(max_inflight=4, max_message_bytes=30))
    for number in range(400):
        disturb(group, number)
        leader = group.leader
        if leader is not None and number % 3 == 0:
            group.step(leader, Proposed(b"%d" % number))
        for _ in range(group.chance.randrange(12)):
            if group.network:
                group.deliver_one()
        for id, member in group.members.items():
            assert member.applied_index <= group[id].commit

    agreed = [entry.data for _, entry in sorted(group.agreed.items()) if entry.data and entry.kind == 0]
    group.heal()
    for id in group.members:
        group.members[id].is_disk_slow = False
        group.write(id)
    group.tick(times=120)
    leader = group.leader
    assert leader is not None
    group.propose(leader, "after")
    group.tick(times=5)

    for member in group.members.values():
        assert member.data[: len(agreed)] == agreed
        assert member.data[-1] == b"after"
        assert len(member.data) == len(set(member.data))
