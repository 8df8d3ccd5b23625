"""How many tasks of a service one node may have."""

from __future__ import annotations

from swarmcore.plugin.scheduling import Check, ClusterView, NodeView, TaskGroup


class MaxReplicasFilter:
    """`max_replicas` of the placement."""

    name, order, dynamic = "max-replicas", 600, True

    def prepare(self, group: TaskGroup, view: ClusterView) -> Check | None:
        most = group.spec.placement.max_replicas
        if not most:
            return None
        service_id = group.service_id

        def check(node: NodeView) -> bool:
            return node.service_tasks(service_id) < most

        return check

    def explain(self, nodes: int) -> str:
        # SwarmKit's words, which name no number.
        return "max replicas per node limit exceed"
