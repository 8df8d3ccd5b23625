"""Ports published on the node itself."""

from __future__ import annotations

from swarmcore.api.types_pb2 import PortConfig
from swarmcore.plugin.scheduling import Check, ClusterView, NodeView, TaskGroup


class HostPortFilter:
    """A port in host mode must be free on the node."""

    name, order, dynamic = "host-port", 500, True

    def prepare(self, group: TaskGroup, view: ClusterView) -> Check | None:
        ports = tuple(
            (int(port.protocol), port.published_port)
            for port in group.sample.endpoint.ports
            if port.publish_mode == PortConfig.HOST and port.published_port
        )
        if not ports:
            return None

        def check(node: NodeView) -> bool:
            return not any(node.host_port_used(protocol, port) for protocol, port in ports)

        return check

    def explain(self, nodes: int) -> str:
        return f"host-mode port already in use on {nodes} node{'s' if nodes != 1 else ''}"
