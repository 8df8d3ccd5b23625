"""Volume, network and log drivers that the node's engine has."""

from __future__ import annotations

from collections.abc import Iterator

from swarmcore.api.types_pb2 import Mount
from swarmcore.plugin.scheduling import ClusterView, Mask, NodeView, TaskGroup


class PluginFilter:
    """Every driver that a task uses must be there. A node that says nothing of its engine passes."""

    name, order, dynamic = "plugin", 200, False

    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | None:
        required = list(_required(group))
        log_driver = group.spec.log_driver.name
        if log_driver == "none":
            log_driver = ""
        if not (required or log_driver):
            return None
        mask: int = view.all
        for kind, name in required:
            mask &= _nodes_with(kind, name, view)
        if log_driver:
            silent = view.attribute("node-filters:log-drivers", _log_drivers).get("none", 0)
            mask &= _nodes_with("Log", log_driver, view) | silent
        return Mask(mask | view.attribute("node-filters:engine", _engine).get("unknown", 0))

    def explain(self, nodes: int) -> str:
        return f"missing plugin on {nodes} node{'s' if nodes != 1 else ''}"


def _required(group: TaskGroup) -> Iterator[tuple[str, str]]:
    for mount in group.spec.container.mounts:
        if mount.type == Mount.VOLUME:
            driver = mount.volume_options.driver_config.name
            if driver not in ("", "local"):
                yield "Volume", driver
    for attachment in group.sample.networks:
        driver = attachment.network.driver_state.name
        if driver:
            yield "Network", driver


def _nodes_with(kind: str, name: str, view: ClusterView) -> int:
    return view.plugin(kind, name) | view.plugin(kind, f"{name}:latest")


def _log_drivers(node: NodeView) -> str:
    """Engines that report no log driver at all are not asked for one."""
    return "some" if any(plugin.type == "Log" for plugin in node.node.description.engine.plugins) else "none"


def _engine(node: NodeView) -> str:
    return "known" if node.node.description.HasField("engine") else "unknown"
