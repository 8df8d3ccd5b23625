"""Brings the managers in line with what the operator wants: who is promoted, who is demoted, who is gone.

Runs while leading. A promoted node's role changes at once: it renews its certificate and joins by itself. A demoted one
leaves the group first, so that it never holds a manager's certificate without being one. A leader that is demoted hands
over and lets the next one do it (SwarmKit: 10.11).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.clock import Clock
from swarmcore.errors import FailedPreconditionError, NotLeaderError, UnavailableError
from swarmcore.raft.membership import Member, Membership, MembershipChange, Remove
from swarmcore.store.inbox import Inbox
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

log = logging.getLogger("swarmcore.manager")

RECONCILE_SECONDS = 5.0
ABSENT_SECONDS = 30.0
"""A member whose node is not in the store may have joined a moment ago."""


class Group(Protocol):
    """What it does to the managers' group."""

    @property
    def raft_id(self) -> int: ...
    @property
    def membership(self) -> Membership: ...
    def reachable(self) -> Sequence[int]: ...
    async def change_membership(self, change: MembershipChange) -> None: ...
    async def hand_over(self) -> bool: ...


class RoleManager:
    """A leader component."""

    name = "role-manager"

    def __init__(self, group: Group, clock: Clock) -> None:
        self._group = group
        self._clock = clock

    async def run(self, store: LeaderStore) -> None:
        absent: dict[int, float] = {}
        with Inbox(store.subscribe(("node",)), self._clock) as inbox:
            while True:
                await self._reconcile(store, absent)
                await inbox.wait(self._clock.monotonic() + RECONCILE_SECONDS)
                inbox.take()

    async def _reconcile(self, store: LeaderStore, absent: dict[int, float]) -> None:
        promoted = [node.id for node in store.view.node.all() if _is_promoted(node)]
        demoted = [node.id for node in store.view.node.all() if _is_demoted(node)]
        if promoted:
            await store.batch(promoted, _promote)
        for id in demoted:
            if await self._leave(id):
                await store.batch([id], _demote)
        now = self._clock.monotonic()
        gone = [each for each in self._group.membership.members.values() if each.node_id not in store.view.node]
        for known in absent.keys() - {each.id for each in gone}:
            del absent[known]
        for member in gone:
            if now - absent.setdefault(member.id, now) >= ABSENT_SECONDS:
                await self._remove(member)

    async def _leave(self, node_id: str) -> bool:
        """Take a demoted node out of the group; whether it is out."""
        member = _member_of(self._group.membership, node_id)
        if member is None:
            return True
        if member.id == self._group.raft_id:
            log.info("this manager is demoted and leads: handing over")
            await self._group.hand_over()
            return False
        return await self._remove(member)

    async def _remove(self, member: Member) -> bool:
        reason = why_not_removed(self._group.membership, member.id, set(self._group.reachable()))
        if reason:
            log.warning("manager %s stays for now: %s", member.node_id, reason)
            return False
        try:
            await self._group.change_membership(Remove(member.id))
        except (FailedPreconditionError, UnavailableError, NotLeaderError) as error:
            log.warning("manager %s could not be removed: %s", member.node_id, error)
            return False
        log.info("manager %s left the group", member.node_id)
        return True


def why_not_removed(membership: Membership, id: int, reachable: set[int]) -> str:
    """Why taking this member out would cost the majority; empty where it would not."""
    if not membership.is_voter(id):
        return ""
    rest = [voter for voter in membership.voters if voter != id]
    alive = len([voter for voter in rest if voter in reachable])
    needed = len(rest) // 2 + 1
    if alive >= needed:
        return ""
    return f"{needed} of the {len(rest)} others must be reachable, and {alive} are"


def _member_of(membership: Membership, node_id: str) -> Member | None:
    return next((each for each in membership.members.values() if each.node_id == node_id), None)


def _is_promoted(node: Node) -> bool:
    return node.spec.desired_role == NodeRole.MANAGER and node.role == NodeRole.WORKER


def _is_demoted(node: Node) -> bool:
    return node.spec.desired_role == NodeRole.WORKER and node.role == NodeRole.MANAGER


def _promote(tx: Transaction, id: str) -> None:
    node = tx.node.get(id)
    if node is not None and _is_promoted(node):
        _set_role(tx, node, NodeRole.MANAGER)


def _demote(tx: Transaction, id: str) -> None:
    node = tx.node.get(id)
    if node is not None and _is_demoted(node):
        _set_role(tx, node, NodeRole.WORKER)


def _set_role(tx: Transaction, node: Node, role: NodeRole.ValueType) -> None:
    changed = Node()
    changed.CopyFrom(node)
    changed.role = role
    tx.node.update(changed)
