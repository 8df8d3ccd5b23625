"""CPUs, memory and generic resources."""

from __future__ import annotations

from swarmcore.plugin.scheduling import Check, ClusterView, NodeView, TaskGroup


class ResourceFilter:
    """What a task reserves must be free on the node."""

    name, order, dynamic = "resource", 100, True

    def prepare(self, group: TaskGroup, view: ClusterView) -> Check | None:
        reservations = group.spec.resources.reservations
        cpus, memory = reservations.nano_cpus, reservations.memory_bytes
        wanted: dict[str, int] = {}
        for resource in reservations.generic:
            if resource.WhichOneof("resource") == "named_resource_spec":
                kind, count = resource.named_resource_spec.kind, 1
            else:
                kind, count = resource.discrete_resource_spec.kind, resource.discrete_resource_spec.value
            wanted[kind] = wanted.get(kind, 0) + count
        if not (cpus or memory or wanted):
            return None
        kinds = tuple(wanted.items())

        def check(node: NodeView) -> bool:
            return (
                node.available_nano_cpus >= cpus
                and node.available_memory_bytes >= memory
                and all(node.available_generic(kind) >= count for kind, count in kinds)
            )

        def check_plain(node: NodeView) -> bool:
            return node.available_nano_cpus >= cpus and node.available_memory_bytes >= memory

        return check if kinds else check_plain

    def explain(self, nodes: int) -> str:
        return f"insufficient resources on {nodes} node{'s' if nodes != 1 else ''}"
