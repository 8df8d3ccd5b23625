"""Comparing two versions of a task, as both sides of a session have to."""

from __future__ import annotations

from swarmcore.api.objects_pb2 import Task


def is_same_but_status(old: Task, new: Task) -> bool:
    """Whether nothing but status and meta differs, so that the node need not hear of it (SwarmKit: 8.6)."""
    if old.desired_state != new.desired_state:
        return False
    left, right = Task(), Task()
    left.CopyFrom(old)
    right.CopyFrom(new)
    for task in (left, right):
        task.ClearField("status")
        task.ClearField("meta")
    return left == right
