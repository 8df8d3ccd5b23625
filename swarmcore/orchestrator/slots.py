"""A slot: all tasks that were ever meant to be one of a service's instances, and what they say about it."""

from __future__ import annotations

from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.brake import is_held
from swarmcore.api.objects_pb2 import Cluster, Node, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.plugin.restart import RestartRecord

Key: TypeAlias = int | str
"""A slot number where the service is replicated, a node id where it is global."""

HISTORY = 64
"""Restarts remembered for a slot, at least; more where the service limits its attempts to more."""

DEFAULT_RETENTION = 5

_RUNNING = TaskState.RUNNING


class Slot:
    """The tasks of one slot, in the order they were made, and the restarts among them."""

    __slots__ = ("_history", "_version", "is_live", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.is_live = False
        """As last looked at: it counts as one of the instances."""
        self._version = -1
        self._history: list[float] | None = None

    def add(self, task: Task) -> None:
        """Take in a task not seen before. Every task of a spec version after the first is a restart."""
        self.tasks[task.id] = task
        version = task.spec_version.index
        if version != self._version:
            self._version = version
            self._history = None
            return
        if self._history is None:
            self._history = []
        self._history.append(seconds(task.meta.created_at))
        if len(self._history) > max(HISTORY, task.spec.restart.max_attempts):
            del self._history[0]

    def restarts(self, task: Task) -> tuple[RestartRecord, ...]:
        """The restarts that took place here at the spec version of `task`."""
        if self._history is None or task.spec_version.index != self._version:
            return ()
        return tuple([RestartRecord(at) for at in self._history])

    def newest(self) -> Task:
        """The task whose status is the latest; the one made last where they are equal."""
        return max(reversed(self.tasks.values()), key=status_time)


def retention_of(cluster: Cluster | None) -> int:
    """How many tasks a slot keeps, as far as the cluster says; negative is all."""
    if cluster is None or not cluster.spec.HasField("orchestration"):
        return DEFAULT_RETENTION
    return cluster.spec.orchestration.task_history_retention_limit


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9


def status_time(task: Task) -> tuple[float, float]:
    """When the task's status was applied, else when it was set; then when it was made."""
    status = task.status
    return seconds(status.applied_at if status.HasField("applied_at") else status.timestamp), seconds(
        task.meta.created_at
    )


def is_usable(node: Node | None) -> bool:
    """Whether tasks may go on running there: it exists, is not DOWN (or is held by the brake) and not drained."""
    return (
        node is not None
        and (node.status.state != NodeStatus.DOWN or is_held(node))
        and node.spec.availability != NodeSpec.Availability.DRAIN
    )


def is_drained(node: Node | None) -> bool:
    return node is not None and node.spec.availability == NodeSpec.Availability.DRAIN


def is_out_of_reach(node: Node | None) -> bool:
    """Whether nobody can be waited for there."""
    return node is None or node.status.state == NodeStatus.DOWN


def has_ended(task: Task) -> bool:
    return task.status.state > _RUNNING


def ended_by_itself(task: Task) -> bool:
    """Whether its end was its own, and not somebody's wish."""
    return task.status.state in (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)
