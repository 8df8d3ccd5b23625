"""Filters and strategies: which nodes may run a task, and which of them is best.

Filters are pure: no clock, network, disk, chance. A filter looks at a whole group of identical tasks at once and
answers with a mask (a bit for each node of the view) where it can, with a check of one node where it must.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol, TypeAlias, runtime_checkable

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.specs_pb2 import TaskSpec

Mask = NewType("Mask", int)
"""Bit i stands for the node whose `NodeView.index` is i."""


class NodeView(Protocol):
    """A node as the scheduler sees it now, with what was placed on it a moment ago."""

    @property
    def index(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def node(self) -> Node:
        """Read-only."""
        ...

    @property
    def active_tasks(self) -> int:
        """Tasks on the node whose desired state is at most COMPLETE."""
        ...

    @property
    def available_nano_cpus(self) -> int: ...
    @property
    def available_memory_bytes(self) -> int: ...
    def available_generic(self, kind: str) -> int:
        """How many of a generic resource are free: the discrete count, or the number of named items."""
        ...

    def service_tasks(self, service_id: str) -> int:
        """Active tasks of a service on this node."""
        ...

    def recent_failures(self, group: TaskGroup) -> int:
        """Failures of the group's tasks here in the last five minutes."""
        ...

    def host_port_used(self, protocol: int, port: int) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGroup:
    """Tasks of one service at one spec version: what fits one fits all."""

    service_id: str
    spec_version: int | None
    spec: TaskSpec
    """Read-only."""
    labels: Mapping[str, str]
    """The service's labels."""
    runtime: str
    """`container`, `attachment`, or the kind of a generic runtime."""
    sample: Task
    """One of the group. Read-only."""


class ClusterView(Protocol):
    """All nodes, with masks that the core keeps up to date."""

    @property
    def nodes(self) -> Sequence[NodeView | None]:
        """By index; None where a node went away."""
        ...

    @property
    def all(self) -> Mask: ...
    @property
    def ready(self) -> Mask:
        """READY and ACTIVE."""
        ...

    def label(self, key: str, value: str) -> Mask:
        """Nodes whose label `key` is exactly `value`."""
        ...

    def engine_label(self, key: str, value: str) -> Mask: ...
    def platform(self, os: str, architecture: str) -> Mask:
        """Nodes of a platform; an empty word matches any, x86_64 is amd64 and aarch64 is arm64."""
        ...

    def plugin(self, kind: str, name: str) -> Mask:
        """Nodes that report an engine plugin of type `kind` (Volume, Network, Log …) and name."""
        ...

    def attribute(self, key: str, matches: Callable[[NodeView], str]) -> Mapping[str, Mask]:
        """Nodes by a string attribute, computed once for each change of the nodes; `key` names it in the cache."""
        ...


Check: TypeAlias = Callable[[NodeView], bool]


@dataclass(frozen=True, slots=True)
class Reasoned:
    """An answer with a reason of its own, from a filter that removes nodes of each group for another reason."""

    answer: Mask | Check
    explain: Callable[[int], str]
    """In place of the filter's own."""


class Filter(Protocol):
    """Removes nodes. Static filters run once for a group; dynamic ones again on a node just placed on."""

    name: str
    """Capability `filter/<name>`."""
    order: int
    """Lower first; ties by name. The bundled ones: ability 50, resource 100, plugin 200, constraint 300, platform 400,
    host-port 500, max-replicas 600."""
    dynamic: bool
    """Its answer can change when a task is placed on the node."""

    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | Check | Reasoned | None:
        """None where the filter does not apply to the group, else what passes."""
        ...

    def explain(self, nodes: int) -> str:
        """Why `nodes` nodes were removed, in SwarmKit's words where there are any."""
        ...


class Strategy(Protocol):
    """Orders the nodes that passed every filter."""

    name: str
    """Capability `strategy/<name>`."""

    def rank(self, group: TaskGroup, view: ClusterView) -> Callable[[NodeView], tuple[int, ...]]:
        """A key for each node; lower is better. Called again for a node after a task was placed on it."""
        ...


@runtime_checkable
class PlacingStrategy(Protocol):
    """Optional: a strategy that walks the nodes itself, for trees such as placement preferences."""

    def place(
        self,
        group: TaskGroup,
        view: ClusterView,
        count: int,
        candidates: Sequence[NodeView],
        fits: Callable[[NodeView], bool],
    ) -> Iterator[NodeView] | None:
        """Yield a node for each of at most `count` tasks; None where `rank` alone gives the order for this group.

        `candidates` are the nodes that pass every filter now. The core books the task on the yielded node before it
        asks for the next; `fits` says whether a node takes one more. Yielding a node that does not fit is an error,
        and holds the group.
        """
        ...
