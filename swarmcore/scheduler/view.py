"""All nodes with what is placed on them, as the scheduler's thread sees them. Kept up to date change by change.

Pure: fed by `put_*` and `remove_*`, asked by filters and strategies through the `ClusterView` protocol. It may be ahead
of the store by what was planned and is not committed yet: `book` and `unbook`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from typing import cast

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.types_pb2 import GenericResource, TaskState
from swarmcore.plugin.scheduling import Mask, NodeView
from swarmcore.scheduler.footprint import NO_FOOTPRINT, Footprint, copy_of, footprint_of
from swarmcore.scheduler.node_state import NodeState, Tag, normal_architecture

MAX_ATTRIBUTES = 256
MAX_FOOTPRINTS = 10_000

_NONE = Mask(0)
_RUNNING = TaskState.RUNNING
_COMPLETE = TaskState.COMPLETE


class Placed:
    """A task that is on a node, or was just put there."""

    __slots__ = ("footprint", "generic", "id", "is_booked", "is_counted", "node", "node_id", "service_id")

    def __init__(self, id: str, service_id: str, node_id: str, footprint: Footprint) -> None:
        # Not the task itself: the store replaces it with every status, and this would keep the old one in memory.
        self.id = id
        self.service_id = service_id
        self.node_id = node_id
        self.node: NodeState | None = None
        self.footprint = footprint
        self.generic: Sequence[GenericResource] = ()
        self.is_counted = False
        self.is_booked = False
        """Planned here and not seen in the store yet."""


class _Attribute:
    __slots__ = ("function", "masks", "stale", "values")

    def __init__(self, function: Callable[[NodeView], str]) -> None:
        self.function = function
        self.values: dict[int, str] = {}
        self.masks: dict[str, Mask] = {}
        self.stale: set[int] = set()


class View:
    """Satisfies `ClusterView`."""

    def __init__(self) -> None:
        self.nodes: list[NodeState | None] = []
        self.services: dict[str, Service] = {}
        self.clock = [0.0]
        """Seconds, monotonic, as of the round that is planned."""
        self._by_id: dict[str, NodeState] = {}
        self._free: list[int] = []
        self._all = _NONE
        self._tags: dict[Tag, int] = {}
        self._attributes: dict[str, _Attribute] = {}
        self._placed: dict[str, Placed] = {}
        self._homeless: dict[str, dict[str, Placed]] = {}
        """Tasks by the id of a node that is not known (yet, or any more)."""
        self._footprints: dict[Footprint, Footprint] = {}
        self._selected: tuple[int, list[NodeState]] | None = None

    # What filters and strategies ask

    @property
    def all(self) -> Mask:
        return self._all

    @property
    def ready(self) -> Mask:
        return self._mask(("ready",))

    def label(self, key: str, value: str) -> Mask:
        return self._mask(("label", key, value))

    def engine_label(self, key: str, value: str) -> Mask:
        return self._mask(("engine", key, value))

    def platform(self, os: str, architecture: str) -> Mask:
        mask = self._mask(("platform",))
        if os:
            mask = Mask(mask & self._mask(("os", os)))
        if architecture:
            mask = Mask(mask & self._mask(("arch", normal_architecture(architecture))))
        return mask

    def plugin(self, kind: str, name: str) -> Mask:
        return self._mask(("plugin", kind, name))

    def runtime(self, name: str) -> Mask:
        """Nodes with an executor for a task runtime."""
        return self._mask(("runtime", name))

    def attribute(self, key: str, matches: Callable[[NodeView], str]) -> Mapping[str, Mask]:
        attribute = self._attributes.get(key)
        if attribute is None:
            if len(self._attributes) >= MAX_ATTRIBUTES:
                del self._attributes[next(iter(self._attributes))]
            attribute = _Attribute(matches)
            attribute.stale.update(node.index for node in self._by_id.values())
            self._attributes[key] = attribute
        while attribute.stale:
            index = next(iter(attribute.stale))
            node = self.nodes[index]
            after = attribute.function(node) if node is not None else None
            attribute.stale.discard(index)
            before = attribute.values.get(index)
            if before == after:
                continue
            bit = 1 << index
            if before is not None:
                left = attribute.masks[before] & ~bit
                if left:
                    attribute.masks[before] = Mask(left)
                else:
                    del attribute.masks[before]
                del attribute.values[index]
            if after is not None:
                attribute.masks[after] = Mask(attribute.masks.get(after, 0) | bit)
                attribute.values[index] = after
        return attribute.masks

    def _mask(self, tag: Tag) -> Mask:
        return cast(Mask, self._tags.get(tag, 0))

    # What the planner asks

    def node(self, id: str) -> NodeState | None:
        return self._by_id.get(id)

    def select(self, mask: int) -> list[NodeState]:
        """The nodes of a mask, by index."""
        if self._selected is not None and self._selected[0] == mask:
            return list(self._selected[1])
        bits = bin(mask)[:1:-1]
        nodes = cast("list[NodeState]", list(compress(self.nodes, map(int, bits))))
        self._selected = (mask, list(nodes))
        return nodes

    def __len__(self) -> int:
        return len(self._by_id)

    def placed(self, task_id: str) -> Placed | None:
        return self._placed.get(task_id)

    def footprint(self, task: Task) -> Footprint:
        """What a task takes; equal ones are one object, since there are few and each task keeps its own."""
        footprint = footprint_of(task)
        if footprint is NO_FOOTPRINT:
            return footprint
        if len(self._footprints) > MAX_FOOTPRINTS:
            self._footprints.clear()
        return self._footprints.setdefault(footprint, footprint)

    # Nodes and services

    def put_node(self, node: Node) -> None:
        """A node was created or changed."""
        state = self._by_id.get(node.id)
        if state is None:
            index = self._free.pop() if self._free else len(self.nodes)
            state = NodeState(index, node, self.clock)
            if index == len(self.nodes):
                self.nodes.append(state)
            else:
                self.nodes[index] = state
            self._by_id[node.id] = state
            self._all = Mask(self._all | 1 << index)
            self._retag(state, frozenset(), state.tags)
            for placed in self._homeless.pop(node.id, {}).values():
                self._settle(placed, state)
        else:
            before = state.tags
            state.replace(node)
            if before != state.tags:
                self._retag(state, before, state.tags)
        self._selected = None
        for attribute in self._attributes.values():
            attribute.stale.add(state.index)

    def remove_node(self, id: str) -> None:
        """A node left. Its tasks are remembered in case it comes back."""
        state = self._by_id.pop(id, None)
        if state is None:
            return
        for placed in state.placed:
            placed.node = None
            self._homeless.setdefault(id, {})[placed.id] = placed
        self.nodes[state.index] = None
        self._free.append(state.index)
        self._all = Mask(self._all & ~(1 << state.index))
        self._retag(state, state.tags, frozenset())
        self._selected = None
        for attribute in self._attributes.values():
            attribute.stale.add(state.index)

    def _retag(self, state: NodeState, before: frozenset[Tag], after: frozenset[Tag]) -> None:
        bit = 1 << state.index
        for tag in before - after:
            left = self._tags[tag] & ~bit
            if left:
                self._tags[tag] = left
            else:
                del self._tags[tag]
        for tag in after - before:
            self._tags[tag] = self._tags.get(tag, 0) | bit

    # Tasks

    def put_task(self, task: Task) -> bool:
        """A task that has a node was created or changed in the store. True where something became free."""
        placed = self._placed.get(task.id)
        state = task.status.state
        if state > _RUNNING:
            if placed is None:
                return False
            if state in (TaskState.FAILED, TaskState.REJECTED) and placed.node is not None:
                version = task.spec_version.index if task.HasField("spec_version") else None
                placed.node.remember_failure(task.service_id, version, self.clock[0])
            self._leave(placed)
            return True
        node_id = task.node_id
        if placed is not None and placed.node_id != node_id:
            self._leave(placed)
            placed = None
        is_counted = task.desired_state <= _COMPLETE
        if placed is None:
            placed = Placed(task.id, task.service_id, node_id, self.footprint(task))
            if task.assigned_generic_resources:
                placed.generic = [copy_of(resource) for resource in task.assigned_generic_resources]
            placed.is_counted = is_counted
            self._placed[placed.id] = placed
            home = self._by_id.get(node_id)
            if home is None:
                self._homeless.setdefault(node_id, {})[placed.id] = placed
            else:
                self._settle(placed, home)
            return False
        placed.is_booked = False
        if is_counted == placed.is_counted:
            return False
        placed.is_counted = is_counted
        if placed.node is not None:
            placed.node.count(placed.service_id, 1 if is_counted else -1)
        return not is_counted

    def remove_task(self, id: str) -> bool:
        """A task was deleted. True where something became free."""
        placed = self._placed.get(id)
        if placed is None:
            return False
        self._leave(placed)
        return True

    def book(self, id: str, service_id: str, node: NodeState, footprint: Footprint) -> Sequence[GenericResource]:
        """Put a waiting task on a node ahead of the store; returns the generic resources it is assigned."""
        placed = Placed(id, service_id, node.id, footprint)
        placed.node = node
        placed.is_booked = True
        placed.is_counted = True
        node.placed.add(placed)
        if footprint is not NO_FOOTPRINT:
            placed.generic = node.claim(footprint)
            node.take(footprint, 1)
        node.count(service_id, 1)
        self._placed[id] = placed
        return placed.generic

    def unbook(self, id: str) -> None:
        """Take a booking back that could not be committed."""
        placed = self._placed.get(id)
        if placed is not None and placed.is_booked:
            self._leave(placed)

    def _settle(self, placed: Placed, node: NodeState) -> None:
        placed.node = node
        node.placed.add(placed)
        if placed.footprint is not NO_FOOTPRINT:
            node.take(placed.footprint, 1)
            node.generic.take(placed.generic)
        if placed.is_counted:
            node.count(placed.service_id, 1)

    def _leave(self, placed: Placed) -> None:
        del self._placed[placed.id]
        node = placed.node
        if node is None:
            homeless = self._homeless.get(placed.node_id)
            if homeless is not None:
                homeless.pop(placed.id, None)
                if not homeless:
                    del self._homeless[placed.node_id]
            return
        node.placed.discard(placed)
        if placed.footprint is not NO_FOOTPRINT:
            node.take(placed.footprint, -1)
            node.generic.release(placed.generic)
        if placed.is_counted:
            node.count(placed.service_id, -1)

    def keep_failures(self, before: View) -> None:
        """Take over which services failed where: the store does not say."""
        for node in self._by_id.values():
            known = before.node(node.id)
            if known is not None:
                node.failures = known.failures

    def tasks(self) -> Iterator[Placed]:
        """Everything placed."""
        return iter(self._placed.values())
