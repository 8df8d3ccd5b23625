"""Each filter through the contract suite, and its own corners."""

from __future__ import annotations

import pytest
from swarmcore_node_filters import swarmcore_scheduler_filters
from swarmcore_node_filters.engine_plugins import PluginFilter
from swarmcore_node_filters.host_ports import HostPortFilter
from swarmcore_node_filters.max_replicas import MaxReplicasFilter
from swarmcore_node_filters.platforms import PlatformFilter
from swarmcore_node_filters.resources import ResourceFilter

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.api.types_pb2 import Mount, PortConfig, TaskState
from swarmcore.plugin.scheduling import Filter, NodeView, TaskGroup
from swarmcore.scheduler.view import View
from swarmcore.testing.scheduling import FilterContract, make_group, make_node, make_task, make_view, passing


def reserving(cpus: int = 0, memory: int = 0, **generic: int) -> TaskSpec:
    spec = TaskSpec()
    spec.resources.reservations.nano_cpus = cpus
    spec.resources.reservations.memory_bytes = memory
    for kind, count in generic.items():
        wanted = spec.resources.reservations.generic.add().discrete_resource_spec
        wanted.kind, wanted.value = kind, count
    return spec


def publishing(id: str, node: str = "", protocol: PortConfig.Protocol.ValueType = PortConfig.TCP) -> Task:
    task = make_task(id, node=node, state=TaskState.RUNNING if node else TaskState.PENDING)
    task.endpoint.ports.add(protocol=protocol, published_port=80, publish_mode=PortConfig.HOST)
    return task


class TestResourceFilter(FilterContract):
    def make_filter(self) -> Filter:
        return ResourceFilter()

    def make_group(self) -> TaskGroup:
        return make_group(reserving(2, 3, gpu=1))

    def make_view(self) -> View:
        running = make_task("r", service="other", node="used", spec=reserving(3), state=TaskState.RUNNING)
        nodes = [
            make_node("roomy", nano_cpus=4, memory_bytes=4, generic={"gpu": 1}),
            make_node("named", nano_cpus=2, memory_bytes=3, generic={"gpu": ["g1"]}),
            make_node("used", nano_cpus=4, memory_bytes=4, generic={"gpu": 1}),
            make_node("no-gpu", nano_cpus=4, memory_bytes=4),
            make_node("no-memory", nano_cpus=4, memory_bytes=2, generic={"gpu": 1}),
        ]
        return make_view(nodes, [running])

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node.id in ("roomy", "named")


class TestPlatformFilter(FilterContract):
    def make_filter(self) -> Filter:
        return PlatformFilter()

    def make_group(self) -> TaskGroup:
        spec = TaskSpec()
        spec.placement.platforms.add(os="linux", architecture="amd64")
        spec.placement.platforms.add(os="windows")
        return make_group(spec)

    def make_view(self) -> View:
        unknown = make_node("unknown")
        unknown.description.ClearField("platform")
        nodes = [
            make_node("docker", architecture="x86_64"),
            make_node("go", architecture="amd64"),
            make_node("arm", architecture="aarch64"),
            make_node("windows", os="windows", architecture="arm64"),
            unknown,
        ]
        return make_view(nodes)

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node.id in ("docker", "go", "windows")


class TestHostPortFilter(FilterContract):
    def make_filter(self) -> Filter:
        return HostPortFilter()

    def make_group(self) -> TaskGroup:
        return make_group(sample=publishing("sample"))

    def make_view(self) -> View:
        tasks = [publishing("t1", "taken"), publishing("t2", "udp", PortConfig.UDP)]
        return make_view([make_node(id) for id in ("free", "taken", "udp")], tasks)

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node.id != "taken"


class TestMaxReplicasFilter(FilterContract):
    def make_filter(self) -> Filter:
        return MaxReplicasFilter()

    def make_group(self) -> TaskGroup:
        spec = TaskSpec()
        spec.placement.max_replicas = 1
        return make_group(spec)

    def make_view(self) -> View:
        tasks = [
            make_task("t1", node="full", state=TaskState.RUNNING),
            make_task("t2", node="ending", state=TaskState.RUNNING, desired=TaskState.SHUTDOWN),
            make_task("t3", service="other", node="other", state=TaskState.RUNNING),
        ]
        return make_view([make_node(id) for id in ("full", "ending", "other")], tasks)

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node.id != "full"


class TestPluginFilter(FilterContract):
    def make_filter(self) -> Filter:
        return PluginFilter()

    def make_group(self) -> TaskGroup:
        spec = TaskSpec()
        mount = spec.container.mounts.add(type=Mount.VOLUME)
        mount.volume_options.driver_config.name = "nfs"
        sample = make_task("sample", spec=spec)
        sample.networks.add().network.driver_state.name = "overlay"
        return make_group(sample=sample)

    def make_view(self) -> View:
        nodes = [
            make_node("both", plugins=[("Volume", "nfs"), ("Network", "overlay")]),
            make_node("latest", plugins=[("Volume", "nfs:latest"), ("Network", "overlay")]),
            make_node("no-network", plugins=[("Volume", "nfs")]),
            make_node("wrong-kind", plugins=[("Log", "nfs"), ("Network", "overlay")]),
            silent("silent"),
        ]
        return make_view(nodes)

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node.id in ("both", "latest", "silent")


def silent(id: str) -> Node:
    """A node that says nothing of its engine."""
    node = make_node(id)
    node.description.ClearField("engine")
    return node


def test_a_log_driver_is_asked_of_engines_that_report_log_drivers() -> None:
    spec = TaskSpec()
    spec.log_driver.name = "syslog"
    nodes = [
        make_node("has", plugins=[("Log", "syslog")]),
        make_node("has-not", plugins=[("Log", "json-file")]),
        make_node("reports-none", plugins=[("Volume", "nfs")]),
    ]
    view = make_view(nodes)

    assert passing(PluginFilter().prepare(make_group(spec), view), view) == ["has", "reports-none"]


@pytest.mark.parametrize("driver", ["", "none"])
def test_no_log_driver_asks_for_nothing(driver: str) -> None:
    spec = TaskSpec()
    spec.log_driver.name = driver

    assert PluginFilter().prepare(make_group(spec), make_view([])) is None


def test_they_explain_themselves_in_the_words_of_swarmkit() -> None:
    filters = swarmcore_scheduler_filters()

    assert [each.explain(1) for each in filters] == [
        "insufficient resources on 1 node",
        "missing plugin on 1 node",
        "unsupported platform on 1 node",
        "host-mode port already in use on 1 node",
        "max replicas per node limit exceed",
    ]
    assert [each.explain(2) for each in filters] == [
        "insufficient resources on 2 nodes",
        "missing plugin on 2 nodes",
        "unsupported platform on 2 nodes",
        "host-mode port already in use on 2 nodes",
        "max replicas per node limit exceed",
    ]
    assert [each.order for each in filters] == sorted(each.order for each in filters)
