"""A node as the scheduler sees it: the stored object, and what was placed on it a moment ago."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import GenericResource, NodeStatus
from swarmcore.scheduler.footprint import Footprint, GenericPool

if TYPE_CHECKING:
    from swarmcore.plugin.scheduling import TaskGroup
    from swarmcore.scheduler.view import Placed

FAILURE_WINDOW_SECONDS = 300.0
EXECUTOR_PLUGIN = "swarmcore/executor"
"""The type of engine plugin by which a node names a runtime that it has an executor for."""

Tag = tuple[str, ...]


class NodeState:
    """Satisfies `NodeView`. Changed only by the view it belongs to."""

    __slots__ = (
        "_clock",
        "_memory",
        "_nano_cpus",
        "active_tasks",
        "available_memory_bytes",
        "available_nano_cpus",
        "failures",
        "generic",
        "id",
        "index",
        "node",
        "placed",
        "ports",
        "services",
        "tags",
    )

    def __init__(self, index: int, node: Node, clock: Sequence[float]) -> None:
        self.index = index
        self.id = node.id
        self.active_tasks = 0
        self.available_nano_cpus = 0
        self.available_memory_bytes = 0
        self.generic = GenericPool()
        self.ports: dict[tuple[int, int], int] = {}
        self.services: dict[str, int] = {}
        self.placed: set[Placed] = set()
        """Every task that is here, in no order."""
        self.failures: dict[tuple[str, int | None], list[float]] = {}
        self._clock = clock
        self._nano_cpus = 0
        self._memory = 0
        self.replace(node)

    def replace(self, node: Node) -> None:
        """Take a newer version of the stored object."""
        self.node = node
        resources = node.description.resources
        self.available_nano_cpus += resources.nano_cpus - self._nano_cpus
        self.available_memory_bytes += resources.memory_bytes - self._memory
        self._nano_cpus, self._memory = resources.nano_cpus, resources.memory_bytes
        self.generic.declare(resources)
        self.tags = tags_of(node)

    # What filters and strategies ask

    def available_generic(self, kind: str) -> int:
        return self.generic.available(kind)

    def service_tasks(self, service_id: str) -> int:
        return self.services.get(service_id, 0)

    def recent_failures(self, group: TaskGroup) -> int:
        if not self.failures:
            return 0
        times = self.failures.get((group.service_id, group.spec_version))
        if times is None:
            return 0
        oldest = self._clock[0] - FAILURE_WINDOW_SECONDS
        return sum(1 for time in times if time >= oldest)

    def host_port_used(self, protocol: int, port: int) -> bool:
        return (protocol, port) in self.ports

    # Bookkeeping

    def take(self, footprint: Footprint, sign: int) -> None:
        """Reserve (`sign` 1) or free (-1) what a task takes, except for generic resources."""
        self.available_nano_cpus -= sign * footprint.nano_cpus
        self.available_memory_bytes -= sign * footprint.memory_bytes
        for port in footprint.ports:
            users = self.ports.get(port, 0) + sign
            if users > 0:
                self.ports[port] = users
            else:
                self.ports.pop(port, None)

    def count(self, service_id: str, sign: int) -> None:
        """Add or take away one active task of a service."""
        self.active_tasks += sign
        tasks = self.services.get(service_id, 0) + sign
        if tasks > 0:
            self.services[service_id] = tasks
        else:
            self.services.pop(service_id, None)

    def remember_failure(self, service_id: str, spec_version: int | None, now: float) -> None:
        """A task of a service failed here. Forgets what is older than five minutes."""
        oldest = now - FAILURE_WINDOW_SECONDS
        for key in [key for key, times in self.failures.items() if times[-1] < oldest]:
            del self.failures[key]
        times = self.failures.setdefault((service_id, spec_version), [])
        times[:] = [time for time in times[-63:] if time >= oldest]
        times.append(now)

    def claim(self, footprint: Footprint) -> Sequence[GenericResource]:
        """Take the generic resources of a task; returns what it is assigned."""
        return self.generic.claim(footprint.generic) if footprint.generic else ()


def tags_of(node: Node) -> frozenset[Tag]:
    """Everything about a node that the view keeps a mask of."""
    tags: set[Tag] = set()
    if node.status.state == NodeStatus.READY and node.spec.availability == NodeSpec.ACTIVE:
        tags.add(("ready",))
    tags.update(("label", key, value) for key, value in node.spec.annotations.labels.items())
    runtimes = set()
    if node.HasField("description"):
        description = node.description
        if description.HasField("platform"):
            platform = description.platform
            tags.add(("platform",))
            tags.add(("os", platform.os))
            tags.add(("arch", normal_architecture(platform.architecture)))
        tags.update(("engine", key, value) for key, value in description.engine.labels.items())
        for plugin in description.engine.plugins:
            tags.add(("plugin", plugin.type, plugin.name))
            if plugin.type == EXECUTOR_PLUGIN:
                runtimes.add(plugin.name)
    tags.update(("runtime", runtime) for runtime in runtimes or {"container"})
    return frozenset(tags)


def normal_architecture(name: str) -> str:
    """One word for each architecture: amd64, arm64, and others as they are."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(name, name)
