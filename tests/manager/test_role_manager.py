"""Who is promoted, who is demoted, and what a majority does not allow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import MappingProxyType

import pytest

from swarmcore.api.caller import Caller
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.errors import InvalidArgumentError
from swarmcore.manager.joining import reachable_address
from swarmcore.manager.role_manager import ABSENT_SECONDS, RECONCILE_SECONDS, RoleManager, why_not_removed
from swarmcore.raft.membership import Member, Membership, MembershipChange
from swarmcore.store.store import Store
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.store import running_store


def membership(*node_ids: str, learners: int = 0) -> Membership:
    members = {
        id: Member(id=id, node_id=node_id, address=f"{node_id}:4242", is_voter=id <= len(node_ids) - learners)
        for id, node_id in enumerate(node_ids, 1)
    }
    return Membership(MappingProxyType(members), len(node_ids))


class FakeGroup:
    """Agrees to every change at once; member 1 is this manager."""

    raft_id = 1

    def __init__(self, *node_ids: str) -> None:
        self.membership = membership(*node_ids)
        self.heard_from = set(self.membership.members)
        self.handed_over = 0

    def reachable(self) -> Sequence[int]:
        return sorted(self.heard_from)

    async def change_membership(self, change: MembershipChange) -> None:
        after = self.membership.after(change)
        assert isinstance(after, Membership)
        self.membership = after

    async def hand_over(self) -> bool:
        self.handed_over += 1
        return True


@contextlib.asynccontextmanager
async def running(group: FakeGroup, clock: SimulatedClock) -> AsyncIterator[Store]:
    async with running_store(clock.now) as store:
        for member in group.membership.members.values():
            await put(store, member.node_id, NodeRole.MANAGER, NodeRole.MANAGER)
        task = asyncio.create_task(RoleManager(group, clock).run(store.writer(1)))
        try:
            yield store
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def put(store: Store, id: str, role: NodeRole.ValueType, desired: NodeRole.ValueType) -> None:
    node = Node(id=id, role=role)
    node.spec.desired_role = desired
    await store.update(lambda tx: tx.node.create(node))


async def want(store: Store, id: str, desired: NodeRole.ValueType) -> None:
    node = Node()
    found = store.view.node.get(id)
    assert found is not None
    node.CopyFrom(found)
    node.spec.desired_role = desired
    await store.update(lambda tx: tx.node.update(node))


def role(store: Store, id: str) -> NodeRole.ValueType:
    node = store.view.node.get(id)
    assert node is not None
    return node.role


async def test_a_promoted_node_may_get_a_managers_certificate_at_once() -> None:
    group, clock = FakeGroup("a"), SimulatedClock()
    async with running(group, clock) as store:
        await put(store, "w", NodeRole.WORKER, NodeRole.MANAGER)
        await clock.advance(0)

        assert role(store, "w") == NodeRole.MANAGER


async def test_a_demoted_manager_leaves_the_group_before_its_role_changes() -> None:
    group, clock = FakeGroup("a", "b", "c"), SimulatedClock()
    async with running(group, clock) as store:
        await want(store, "b", NodeRole.WORKER)
        await clock.advance(0)

        assert 2 not in group.membership
        assert role(store, "b") == NodeRole.WORKER


async def test_a_demotion_that_would_cost_the_majority_waits_until_others_are_back() -> None:
    group, clock = FakeGroup("a", "b", "c"), SimulatedClock()
    group.heard_from = {1, 2}
    async with running(group, clock) as store:
        await want(store, "b", NodeRole.WORKER)
        await clock.advance(0)
        assert 2 in group.membership
        assert role(store, "b") == NodeRole.MANAGER

        group.heard_from = {1, 2, 3}
        await clock.advance(RECONCILE_SECONDS)
        assert role(store, "b") == NodeRole.WORKER


async def test_a_leader_that_is_demoted_hands_over_and_changes_nothing_itself() -> None:
    group, clock = FakeGroup("a", "b", "c"), SimulatedClock()
    async with running(group, clock) as store:
        await want(store, "a", NodeRole.WORKER)
        await clock.advance(0)

        assert group.handed_over == 1
        assert 1 in group.membership
        assert role(store, "a") == NodeRole.MANAGER


async def test_a_member_whose_node_is_gone_is_removed_when_it_stays_gone() -> None:
    group, clock = FakeGroup("a", "b", "c"), SimulatedClock()
    async with running(group, clock) as store:
        await store.update(lambda tx: tx.node.delete("c"))
        await clock.advance(ABSENT_SECONDS / 2)
        assert 3 in group.membership

        await clock.advance(ABSENT_SECONDS)
        assert 3 not in group.membership


@pytest.mark.parametrize(
    ("voters", "id", "reachable", "allowed"),
    [
        (3, 3, {1, 2}, True),
        (3, 3, {1, 2, 3}, True),
        (3, 3, {1, 3}, False),
        (2, 2, {1}, True),
        (5, 5, {1, 2, 5}, False),
        (5, 5, {1, 2, 3}, True),
    ],
)
def test_the_rest_must_keep_its_majority(voters: int, id: int, reachable: set[int], allowed: bool) -> None:
    group = membership(*(f"n{number}" for number in range(1, voters + 1)))

    assert (why_not_removed(group, id, reachable) == "") is allowed


def test_a_learner_counts_for_nothing_and_may_always_go() -> None:
    assert why_not_removed(membership("a", "b", learners=1), 2, {1}) == ""


@pytest.mark.parametrize(
    ("named", "seen", "reached"),
    [
        ("10.1.1.1:4242", "10.9.9.9", "10.1.1.1:4242"),
        ("0.0.0.0:4242", "10.9.9.9", "10.9.9.9:4242"),
        ("[::]:4242", "fd00::9", "[fd00::9]:4242"),
        ("host.example:1", "10.9.9.9", "host.example:1"),
    ],
)
def test_a_manager_that_names_no_host_is_where_it_calls_from(named: str, seen: str, reached: str) -> None:
    caller = Caller(node_id="n", role=NodeRole.MANAGER, remote_addr=seen)

    assert reachable_address(named, caller) == reached


@pytest.mark.parametrize("named", ["", "host", "host:", "host:0", "host:65536", "host:x", "host:१"])
def test_what_is_no_address_is_refused(named: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no address"):
        reachable_address(named, Caller(node_id="n", role=NodeRole.MANAGER, remote_addr="10.1.1.1"))
