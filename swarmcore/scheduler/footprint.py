"""What a task takes on its node, and what a node has: CPUs, memory, generic resources, host ports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import (
    DiscreteGenericResource,
    GenericResource,
    NamedGenericResource,
    PortConfig,
    Resources,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one task of a group takes. The same for all tasks of a service at one spec version."""

    nano_cpus: int
    memory_bytes: int
    generic: tuple[tuple[str, int], ...]
    """Kinds and how many of each."""
    ports: tuple[tuple[int, int], ...]
    """Host ports as (protocol, published port)."""


NO_FOOTPRINT = Footprint(nano_cpus=0, memory_bytes=0, generic=(), ports=())


def footprint_of(task: Task) -> Footprint:
    """What `task` reserves by its spec and publishes by its endpoint."""
    nano_cpus = memory_bytes = 0
    generic: dict[str, int] = {}
    if task.spec.HasField("resources") and task.spec.resources.HasField("reservations"):
        reservations = task.spec.resources.reservations
        nano_cpus, memory_bytes = reservations.nano_cpus, reservations.memory_bytes
        for kind, count in counts_of(reservations.generic):
            generic[kind] = generic.get(kind, 0) + count
    ports: tuple[tuple[int, int], ...] = ()
    if task.HasField("endpoint"):
        ports = tuple(
            (int(port.protocol), port.published_port)
            for port in task.endpoint.ports
            if port.publish_mode == PortConfig.HOST and port.published_port
        )
    if not (nano_cpus or memory_bytes or generic or ports):
        return NO_FOOTPRINT
    return Footprint(nano_cpus=nano_cpus, memory_bytes=memory_bytes, generic=tuple(generic.items()), ports=ports)


def counts_of(resources: Iterable[GenericResource]) -> Iterable[tuple[str, int]]:
    """How many of each kind: a named item counts as one."""
    for resource in resources:
        if resource.WhichOneof("resource") == "named_resource_spec":
            yield resource.named_resource_spec.kind, 1
        else:
            yield resource.discrete_resource_spec.kind, resource.discrete_resource_spec.value


def copy_of(resource: GenericResource) -> GenericResource:
    """The same, no longer part of the task it came from (which would stay in memory with it)."""
    copy = GenericResource()
    copy.CopyFrom(resource)
    return copy


class GenericPool:
    """A node's generic resources: what it declares, less what its tasks were assigned."""

    __slots__ = ("_discrete", "_named", "_used", "_used_names")

    def __init__(self) -> None:
        self._discrete: dict[str, int] = {}
        self._named: dict[str, list[str]] = {}
        self._used: dict[str, int] = {}
        self._used_names: dict[str, set[str]] = {}

    def declare(self, resources: Resources) -> None:
        """Take what the node says it has now. What tasks were assigned stays theirs."""
        self._discrete = {}
        self._named = {}
        for resource in resources.generic:
            if resource.WhichOneof("resource") == "named_resource_spec":
                named = resource.named_resource_spec
                self._named.setdefault(named.kind, []).append(named.value)
            else:
                discrete = resource.discrete_resource_spec
                self._discrete[discrete.kind] = self._discrete.get(discrete.kind, 0) + discrete.value

    def available(self, kind: str) -> int:
        """How many are free, never below zero."""
        if kind in self._named:
            used = self._used_names.get(kind, ())
            return sum(1 for name in self._named[kind] if name not in used)
        return max(0, self._discrete.get(kind, 0) - self._used.get(kind, 0))

    def claim(self, wanted: Sequence[tuple[str, int]]) -> list[GenericResource]:
        """Take `wanted` and return it as it is written into the task: named items in the order declared."""
        assigned = []
        for kind, count in wanted:
            if kind in self._named:
                used = self._used_names.get(kind, set())
                for name in [name for name in self._named[kind] if name not in used][:count]:
                    named = NamedGenericResource(kind=kind, value=name)
                    assigned.append(GenericResource(named_resource_spec=named))
            else:
                discrete = DiscreteGenericResource(kind=kind, value=count)
                assigned.append(GenericResource(discrete_resource_spec=discrete))
        self.take(assigned)
        return assigned

    def take(self, assigned: Iterable[GenericResource]) -> None:
        """Mark what a task has been assigned as used."""
        for resource in assigned:
            if resource.WhichOneof("resource") == "named_resource_spec":
                named = resource.named_resource_spec
                self._used_names.setdefault(named.kind, set()).add(named.value)
            else:
                discrete = resource.discrete_resource_spec
                self._used[discrete.kind] = self._used.get(discrete.kind, 0) + discrete.value

    def release(self, assigned: Iterable[GenericResource]) -> None:
        """Give back what a task had."""
        for resource in assigned:
            if resource.WhichOneof("resource") == "named_resource_spec":
                named = resource.named_resource_spec
                self._used_names.get(named.kind, set()).discard(named.value)
            else:
                discrete = resource.discrete_resource_spec
                self._used[discrete.kind] = max(0, self._used.get(discrete.kind, 0) - discrete.value)
