"""As even as possible: over the branches that placement preferences make, then over nodes. SwarmKit: 7.5."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace

from swarmcore.plugin.scheduling import ClusterView, NodeView, TaskGroup

MAX_FAILURES = 5
"""Recent failures of a service from which on a node comes last."""

Key = Callable[[NodeView], tuple[int, ...]]


class SpreadStrategy:
    """The node with the fewest tasks of the service, then with the fewest tasks."""

    name = "spread"

    def rank(self, group: TaskGroup, view: ClusterView) -> Key:
        service_id = group.service_id

        def key(node: NodeView) -> tuple[int, int, int]:
            failures = node.recent_failures(group)
            return (
                failures if failures >= MAX_FAILURES else 0,
                node.service_tasks(service_id),
                node.active_tasks,
            )

        return key

    def place(
        self,
        group: TaskGroup,
        view: ClusterView,
        count: int,
        candidates: Sequence[NodeView],
        fits: Callable[[NodeView], bool],
    ) -> Iterator[NodeView] | None:
        levels = preferences(group)
        if not levels:
            return None
        return walk(tree(group, view, candidates, levels, self.rank(group, view)), count, fits)


def preferences(group: TaskGroup) -> list[Callable[[NodeView], str]]:
    """The label that each level of the tree goes by; what can't be understood is left out."""
    levels = []
    for preference in group.spec.placement.preferences:
        descriptor = preference.spread.spread_descriptor
        level = _level(descriptor)
        if level is not None:
            levels.append(level)
    return levels


def _level(descriptor: str) -> Callable[[NodeView], str] | None:
    kind, label = descriptor[:14].lower(), descriptor[14:]
    if kind == "engine.labels." and label:
        return lambda node: node.node.description.engine.labels.get(label, "")
    kind, label = descriptor[:12].lower(), descriptor[12:]
    if kind == "node.labels." and label:
        return lambda node: node.node.spec.annotations.labels.get(label, "")
    return None


class Leaf:
    """Nodes that have every preferred label in common, best first."""

    def __init__(self, key: Key) -> None:
        self.tasks = 0
        self._key = key
        self._heap: list[tuple[tuple[int, ...], int, NodeView]] = []

    def add(self, node: NodeView) -> None:
        self._heap.append((self._key(node), node.index, node))

    def prepare(self) -> bool:
        """Called once when all nodes were added; True where there is a node."""
        heapify(self._heap)
        return bool(self._heap)

    def take(self, fits: Callable[[NodeView], bool]) -> Iterator[NodeView]:
        """The best node, if there is one left; taken up again when the task is booked."""
        if not self._heap:
            return
        _, index, node = self._heap[0]
        self.tasks += 1
        yield node
        if fits(node):
            heapreplace(self._heap, (self._key(node), index, node))
        else:
            heappop(self._heap)

    @property
    def is_full(self) -> bool:
        return not self._heap


class Branch:
    """What a level of the tree divides by the values of one label."""

    def __init__(self) -> None:
        self.tasks = 0
        self.below: dict[str, Branch | Leaf] = {}
        self._heap: list[tuple[int, str]] = []

    def prepare(self) -> bool:
        """Called once when all nodes were added; True where there is a node."""
        self._heap = [(child.tasks, value) for value, child in self.below.items() if child.prepare()]
        heapify(self._heap)
        return bool(self._heap)

    def take(self, fits: Callable[[NodeView], bool]) -> Iterator[NodeView]:
        """A node of the branch with the fewest tasks that has one."""
        if not self._heap:
            return
        _, value = self._heap[0]
        child = self.below[value]
        self.tasks += 1
        yield from child.take(fits)
        if child.is_full:
            heappop(self._heap)
        else:
            heapreplace(self._heap, (child.tasks, value))

    @property
    def is_full(self) -> bool:
        return not self._heap


def tree(
    group: TaskGroup,
    view: ClusterView,
    candidates: Sequence[NodeView],
    levels: Sequence[Callable[[NodeView], str]],
    key: Key,
) -> Branch:
    """All nodes by their labels, with how many tasks of the service each branch has; only candidates can be taken."""
    root = Branch()
    usable = {node.index for node in candidates}
    for node in view.nodes:
        if node is None:
            continue
        tasks = node.service_tasks(group.service_id)
        branch = root
        branch.tasks += tasks
        for depth, level in enumerate(levels, 1):
            value = level(node)
            child = branch.below.get(value)
            if child is None:
                child = branch.below[value] = Branch() if depth < len(levels) else Leaf(key)
            child.tasks += tasks
            if isinstance(child, Leaf):
                if node.index in usable:
                    child.add(node)
            else:
                branch = child
    return root


def walk(root: Branch, count: int, fits: Callable[[NodeView], bool]) -> Iterator[NodeView]:
    """A node for each task, always from the emptiest branch: what SwarmKit computes level by level comes out even."""
    root.prepare()
    for _ in range(count):
        if root.is_full:
            return
        yield from root.take(fits)
