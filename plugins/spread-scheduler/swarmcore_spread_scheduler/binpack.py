"""As full as possible: leaves whole nodes free for what is large."""

from __future__ import annotations

from collections.abc import Callable

from swarmcore.plugin.scheduling import ClusterView, NodeView, TaskGroup
from swarmcore_spread_scheduler.spread import MAX_FAILURES


class BinpackStrategy:
    """The node with the least left of what the service reserves, then with the most tasks."""

    name = "binpack"

    def rank(self, group: TaskGroup, view: ClusterView) -> Callable[[NodeView], tuple[int, ...]]:
        reservations = group.spec.resources.reservations
        is_cpu, is_memory = bool(reservations.nano_cpus), bool(reservations.memory_bytes)

        def key(node: NodeView) -> tuple[int, int, int]:
            failures = node.recent_failures(group)
            free = 0
            if is_cpu or is_memory:
                resources = node.node.description.resources
                if is_cpu:
                    free += _thousandths(node.available_nano_cpus, resources.nano_cpus)
                if is_memory:
                    free += _thousandths(node.available_memory_bytes, resources.memory_bytes)
            return failures if failures >= MAX_FAILURES else 0, free, -node.active_tasks

        return key


def _thousandths(part: int, whole: int) -> int:
    return part * 1000 // whole if whole > 0 else 0
