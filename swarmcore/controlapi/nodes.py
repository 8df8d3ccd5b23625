"""Nodes: list, change what is wanted of them, remove them (SwarmKit: 2.3)."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from swarmcore.api.control_pb2 import (
    GetNodeRequest,
    GetNodeResponse,
    ListNodesRequest,
    ListNodesResponse,
    RemoveNodeRequest,
    RemoveNodeResponse,
    UpdateNodeRequest,
    UpdateNodeResponse,
)
from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole, NodeStatus, RaftMemberStatus, TaskState
from swarmcore.controlapi.calls import Calls, not_found, require_version
from swarmcore.controlapi.cluster_ops import MemberLike
from swarmcore.controlapi.select import Predicate, candidates, common_predicates, fill, labels_match, matching
from swarmcore.controlapi.validate.bounds import check_id, check_request
from swarmcore.controlapi.validate.names import check_free_name
from swarmcore.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from swarmcore.store.transaction import Transaction

ORPHANED_MESSAGE = "Task belonged to a node that has been deleted"
REACHABLE = RaftMemberStatus.REACHABLE
ORPHANED_BYTES_WITH_NODE = 512 * 1024
"""Of tasks orphaned in the node's own transaction; with many more it would pass the limit of 1.5 MiB."""


def _hostname(node: Node) -> str:
    return node.description.hostname


def member_of(members: Collection[MemberLike], node_id: str) -> MemberLike | None:
    return next((member for member in members if member.node_id == node_id), None)


def can_lose(members: Collection[MemberLike], node_id: str) -> bool:
    """Whether the managers other than `node_id` still reach a quorum among themselves (SwarmKit: 11.3)."""
    others = [member for member in members if member.node_id != node_id]
    reachable = sum(1 for member in others if member.is_leader or member.reachability == REACHABLE)
    return reachable >= len(others) // 2 + 1


def _still_member(node: Node) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"node {node.id} is a cluster manager and is a member of the raft cluster. "
        "It must be demoted to worker before removal"
    )


class NodeCalls(Calls):
    def _show(self, node: Node, members: Collection[MemberLike] | None = None) -> Node:
        shown = Node()
        shown.CopyFrom(node)
        shown.ClearField("manager_status")
        member = member_of(self.members() if members is None else members, node.id)
        if member is not None:
            status = shown.manager_status
            status.raft_id = member.raft_id
            status.addr = member.address
            status.leader = member.is_leader
            status.reachability = cast("RaftMemberStatus.Reachability.ValueType", member.reachability)
        return shown

    async def GetNode(self, request: GetNodeRequest, context: object) -> GetNodeResponse:
        node = self.store.view.node.get(check_id(request.node_id, "node_id"))
        if node is None:
            raise not_found("node", request.node_id)
        return GetNodeResponse(node=self._show(node))

    async def ListNodes(self, request: ListNodesRequest, context: object) -> ListNodesResponse:
        check_request(request)
        filters = request.filters
        predicates: list[Predicate] = common_predicates(filters, _hostname, lambda node: node.description.engine.labels)
        if filters.node_labels:
            wanted = dict(filters.node_labels)
            predicates.append(lambda node: labels_match(wanted, node.spec.annotations.labels))
        if filters.memberships:
            memberships = frozenset(filters.memberships)
            predicates.append(lambda node: node.spec.membership in memberships)
        if filters.roles:
            roles = frozenset(filters.roles)
            predicates.append(lambda node: node.role in roles)
        nodes = await matching(candidates(self.store.view.node, filters), predicates)
        members = {member.node_id: member for member in self.members()}
        response = ListNodesResponse()
        await fill(
            response.nodes, nodes, lambda node: self._show(node, [members[node.id]] if node.id in members else ())
        )
        return response

    async def UpdateNode(self, request: UpdateNodeRequest, context: object) -> UpdateNodeResponse:
        check_request(request)
        node_id = check_id(request.node_id, "node_id")
        version = require_version(request.HasField("node_version"), request.node_version, "node_version")
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")
        if request.spec.annotations.name:
            check_free_name(request.spec.annotations.name)

        def write(tx: Transaction) -> Node:
            old = tx.node.get(node_id)
            if old is None:
                raise not_found("node", node_id)
            is_demotion = old.spec.desired_role == NodeRole.MANAGER and request.spec.desired_role == NodeRole.WORKER
            # A node that nobody has accepted yet is no manager, whatever it asked to be.
            if is_demotion and old.spec.membership == NodeSpec.ACCEPTED:
                self._check_demotion(tx, old)
            node = Node()
            node.CopyFrom(old)
            node.meta.version.index = version
            node.spec.CopyFrom(request.spec)
            tx.node.update(node)
            return node

        return UpdateNodeResponse(node=self._show(await self.store.update(write)))

    def _check_demotion(self, tx: Transaction, node: Node) -> None:
        managers = sum(1 for other in tx.node.all() if other.role == NodeRole.MANAGER)
        if managers == 1 and node.role == NodeRole.MANAGER:
            raise FailedPreconditionError("attempting to demote the last manager of the swarm")
        members = self.members()
        if member_of(members, node.id) is None:
            raise NotFoundError(f"can't find manager {node.id} in raft memberlist: try again once it has joined")
        if not can_lose(members, node.id):
            raise FailedPreconditionError(
                f"can't remove manager {node.id} from the raft: this would result in a loss of quorum; "
                "bring other managers back first"
            )

    async def RemoveNode(self, request: RemoveNodeRequest, context: object) -> RemoveNodeResponse:
        node_id = check_id(request.node_id, "node_id")

        def write(tx: Transaction) -> list[str]:
            node = tx.node.get(node_id)
            if node is None:
                raise not_found("node", node_id)
            is_pending = node.spec.membership == NodeSpec.PENDING
            if node.spec.desired_role == NodeRole.MANAGER and not is_pending:
                self._check_manager_removal(node)
            elif member_of(self.members(), node_id) is not None:
                raise _still_member(node)
            if not request.force and node.status.state == NodeStatus.READY:
                raise FailedPreconditionError(
                    f"node {node_id} is not down and can't be removed: stop it first, or remove it with force"
                )
            self.cluster_ops.record_removed_node(tx, node)
            tx.node.delete(node_id)
            live = [task.id for task in tx.task.by("node", node_id) if task.status.state < TaskState.COMPLETE]
            before = tx.bytes
            for position, task_id in enumerate(live):
                if tx.bytes - before > ORPHANED_BYTES_WITH_NODE:
                    return live[position:]
                self._orphan(tx, task_id)
            return []

        rest = await self.store.update(write)
        if rest:
            await self.store.batch(rest, self._orphan)
        return RemoveNodeResponse()

    def _check_manager_removal(self, node: Node) -> None:
        members = self.members()
        if not members:
            raise FailedPreconditionError(
                f"node {node.id} is a manager but cannot access node information from the raft memberlist"
            )
        if member_of(members, node.id) is not None:
            raise _still_member(node)

    def _orphan(self, tx: Transaction, task_id: str) -> None:
        old = tx.task.get(task_id)
        if old is None or old.status.state >= TaskState.COMPLETE:
            return
        task = Task()
        task.CopyFrom(old)
        task.status.state = TaskState.ORPHANED
        task.status.message = ORPHANED_MESSAGE
        task.status.timestamp.CopyFrom(self.now())
        tx.task.update(task)
