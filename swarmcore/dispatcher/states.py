"""What the dispatcher writes: node states, task statuses, volume reports. Each function runs in a transaction."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Node, Task, Volume
from swarmcore.api.types_pb2 import NodeDescription, NodeStatus, TaskState, TaskStatus, VolumePublishStatus
from swarmcore.errors import SwarmError
from swarmcore.store.transaction import Transaction

UNKNOWN_MESSAGE = 'Node moved to "unknown" state due to leadership change in cluster'
DOWN_MESSAGE = "heartbeat failure"
UNKNOWN_DOWN_MESSAGE = 'heartbeat failure for node in "unknown" state'
DISCONNECTED_MESSAGE = "node is currently trying to find new manager"


@dataclass(frozen=True, slots=True)
class NodeState:
    """A state to write."""

    state: NodeStatus.State.ValueType
    message: str


def mark_ready(tx: Transaction, node_id: str, description: NodeDescription | None, address: str) -> None:
    """The node has a session. Raises the error that its agent knows when there is no such node."""
    old = tx.node.get(node_id)
    if old is None:
        raise SwarmError("node not found")
    node = Node()
    node.CopyFrom(old)
    node.status.state = NodeStatus.READY
    node.status.message = ""
    if address:
        node.status.addr = address
    if description is not None:
        node.description.CopyFrom(description)
    if node != old:
        tx.node.update(node)


def write_node_state(tx: Transaction, node_id: str, target: NodeState) -> None:
    """Set state and message; a node that is gone, or has them, is left alone."""
    old = tx.node.get(node_id)
    if old is None or (old.status.state == target.state and old.status.message == target.message):
        return
    if target.state == NodeStatus.UNKNOWN and old.status.state == NodeStatus.DOWN:
        return
    node = Node()
    node.CopyFrom(old)
    node.status.state = target.state
    node.status.message = target.message
    tx.node.update(node)


def write_task_status(tx: Transaction, task_id: str, status: TaskStatus, applied_by: str, now: Timestamp) -> None:
    """Take over what an agent reports; what is gone, known or older than what is known changes nothing."""
    old = tx.task.get(task_id)
    if old is None:
        return
    known = old.status
    state, before = status.state, known.state
    # A report that comes again (each new session repeats all of them) must not be a write.
    if state < before or (state == before and _says_the_same(status, known)):
        return
    task = Task()
    task.CopyFrom(old)
    written = task.status
    written.CopyFrom(status)
    written.applied_by = applied_by
    written.applied_at.CopyFrom(now)
    tx.task.update_status(task)


def _says_the_same(status: TaskStatus, known: TaskStatus) -> bool:
    """Whether a report holds nothing new: what the dispatcher adds to it is left out."""
    reported = TaskStatus()
    reported.CopyFrom(status)
    reported.applied_by = known.applied_by
    if known.HasField("applied_at"):
        reported.applied_at.CopyFrom(known.applied_at)
    else:
        reported.ClearField("applied_at")
    return reported == known


def write_orphaned(tx: Transaction, task_id: str, applied_by: str, now: Timestamp) -> None:
    """Give a task up whose node has been down for a day."""
    old = tx.task.get(task_id)
    if old is None or not TaskState.ASSIGNED <= old.status.state <= TaskState.RUNNING:
        return
    task = Task()
    task.CopyFrom(old)
    task.status.state = TaskState.ORPHANED
    task.status.message = "node was down for too long"
    task.status.timestamp.CopyFrom(now)
    task.status.applied_by = applied_by
    task.status.applied_at.CopyFrom(now)
    tx.task.update_status(task)


def write_unpublished(tx: Transaction, volume_id: str, node_id: str) -> None:
    """The node no longer mounts the volume: the controller may take it away from the node."""
    old = tx.volume.get(volume_id)
    if old is None:
        return
    volume = Volume()
    volume.CopyFrom(old)
    for status in volume.publish_status:
        if status.node_id == node_id and status.state != VolumePublishStatus.PENDING_UNPUBLISH:
            status.state = VolumePublishStatus.PENDING_UNPUBLISH
            tx.volume.update(volume)
            return
