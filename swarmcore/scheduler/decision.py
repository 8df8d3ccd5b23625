"""What a round decides: a node for a task, or a status for one that has to wait or will never run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import GenericResource, TaskState


@dataclass(slots=True, eq=False)
class Assign:
    """`task` runs on `node`. Both are as they were when it was decided, and read-only."""

    task: Task
    node: Node
    generic: Sequence[GenericResource]


@dataclass(slots=True, eq=False)
class Report:
    """`task` gets no node: why, or that it never will."""

    task: Task
    err: str
    state: TaskState.ValueType = TaskState.PENDING


Decision = Assign | Report
