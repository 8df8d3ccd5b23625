"""Which slots stay when a service is scaled down (SwarmKit: 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState

Standing: TypeAlias = tuple[bool, str]
"""What counts of a slot: whether a task of it runs, and its node; no node where it has none or several tasks."""


def standing_of(tasks: Sequence[Task]) -> Standing:
    """The standing of a slot, by its live tasks."""
    if len(tasks) == 1:
        return tasks[0].status.state == TaskState.RUNNING, tasks[0].node_id
    return any(task.status.state == TaskState.RUNNING for task in tasks), ""


def choose_victims(slots: Mapping[int, Standing], keep: int) -> list[int]:
    """Return the numbers of the slots to give up, the first to go first. Linear in the number of slots.

    First go slots not yet on a node and slots with several tasks; then the nodes with the most copies give theirs,
    what does not run before what runs, higher numbers before lower.
    """
    running: list[int] = []
    other: list[int] = []
    for number in sorted(slots):
        (running if slots[number][0] else other).append(number)
    unsettled: list[int] = []
    rounds: list[list[int]] = []
    copies: dict[str, int] = {}
    for number in (*running, *other):
        node_id = slots[number][1]
        if not node_id:
            unsettled.append(number)
            continue
        copy = copies.get(node_id, 0)
        copies[node_id] = copy + 1
        if copy == len(rounds):
            rounds.append([])
        rounds[copy].append(number)
    order = [number for copy in rounds for number in copy]
    order.extend(unsettled)
    return order[keep:][::-1]
