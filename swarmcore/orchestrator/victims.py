"""Which slots stay when a service is scaled down (SwarmKit: 4.2)."""

from __future__ import annotations

from collections.abc import Mapping

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState


def choose_victims(slots: Mapping[int, list[Task]], keep: int) -> list[int]:
    """Return the numbers of the slots to give up, the first to go first. Linear in the number of slots.

    `slots`: the live tasks of each live slot. First go slots not yet on a node and slots with several tasks; then
    the nodes with the most copies give theirs, what does not run before what runs, higher numbers before lower.
    """
    running: list[int] = []
    other: list[int] = []
    for number in sorted(slots):
        runs = any(task.status.state == TaskState.RUNNING for task in slots[number])
        (running if runs else other).append(number)
    unsettled: list[int] = []
    rounds: list[list[int]] = []
    copies: dict[str, int] = {}
    for number in (*running, *other):
        tasks = slots[number]
        node_id = tasks[0].node_id if len(tasks) == 1 else ""
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
