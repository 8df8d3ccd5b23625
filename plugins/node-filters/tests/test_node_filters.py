"""Each filter through the contract suite, and its own corners."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from swarmcore_node_filters import swarmcore_scheduler_filters
from swarmcore_node_filters.abilities import AbilityFilter
from swarmcore_node_filters.engine_plugins import PluginFilter
from swarmcore_node_filters.host_ports import HostPortFilter
from swarmcore_node_filters.max_replicas import MaxReplicasFilter
from swarmcore_node_filters.platforms import PlatformFilter
from swarmcore_node_filters.resources import ResourceFilter

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.process_pb2 import ProcessHealth, ProcessSpec, ProcessUlimit
from swarmcore.api.specs_pb2 import ContainerSpec, TaskSpec
from swarmcore.api.types_pb2 import Mount, PortConfig, Privileges, ResourceType, TaskState
from swarmcore.plugin.abilities import ABILITIES
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


ALL = ",".join(ABILITIES)


class TestAbilityFilter(FilterContract):
    def make_filter(self) -> Filter:
        return AbilityFilter()

    def make_group(self) -> TaskGroup:
        spec = TaskSpec()
        spec.container.secrets.add()
        spec.resources.limits.memory_bytes = 1
        return make_group(spec)

    def make_view(self) -> View:
        nodes = [
            make_node("stock"),
            make_node("silent", plugins=[("swarmcore/executor", "container")]),
            able("all", f"container:{ALL}", "process:logs"),
            able("no-limits", "container:secrets,logs"),
            able("nothing", "container:"),
            able("other", f"process:{ALL}", "containers:"),
        ]
        return make_view(nodes)

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node.id not in ("no-limits", "nothing")


def able(id: str, *abilities: str) -> Node:
    return make_node(id, plugins=[("swarmcore/abilities", each) for each in abilities])


def test_what_is_missing_is_named() -> None:
    spec = TaskSpec()
    spec.container.secrets.add()
    spec.container.configs.add()
    spec.container.ulimits.add()
    view = make_view([able("a", "container:ulimits,configs"), able("b", "container:ulimits,secrets")])

    answer = AbilityFilter().prepare(make_group(spec), view)

    assert answer is not None
    assert answer.explain(2) == "executor without configs, secrets on 2 nodes"


def needing(ability: str) -> Task:
    """A task that needs this and nothing else."""
    task = make_task("t")
    spec, container = task.spec, task.spec.container
    match ability:
        case "healthcheck":
            container.healthcheck.test.extend(["CMD", "true"])
        case "secrets":
            container.secrets.add()
        case "configs":
            container.configs.add()
        case "mounts":
            container.mounts.add(type=Mount.TMPFS)
        case "cluster-volumes":
            container.mounts.add(type=Mount.CLUSTER)
        case "networks":
            spec.networks.add()
        case "host-ports":
            task.endpoint.ports.add(publish_mode=PortConfig.HOST)
        case "ingress-ports":
            task.endpoint.ports.add(publish_mode=PortConfig.INGRESS)
        case "limits":
            spec.resources.limits.nano_cpus = 1
        case "pids-limit":
            container.pidsLimit = 1
        case "swap":
            spec.resources.swap_bytes.value = 0
        case "swappiness":
            spec.resources.memory_swappiness.value = 0
        case "seccomp":
            container.privileges.seccomp.mode = Privileges.SeccompOpts.CUSTOM
        case "selinux":
            container.privileges.selinux_context.type = "container_t"
        case "ulimits":
            container.ulimits.add()
        case "sysctls":
            container.sysctls["a"] = "b"
        case "privileges":
            container.capability_add.append("ALL")
        case "log-drivers":
            spec.log_driver.name = "gelf"
        case "isolation":
            container.isolation = ContainerSpec.ISOLATION_HYPERV
    return task


@pytest.mark.parametrize("ability", sorted(set(ABILITIES) - {"logs", "exec", "stats"}))
def test_each_ability_is_asked_for_by_a_task_that_needs_it(ability: str) -> None:
    group = make_group(sample=needing(ability))
    others = ",".join(set(ABILITIES) - {ability})
    view = make_view([able("able", f"container:{ability}"), able("unable", f"container:{others}")])

    assert passing(AbilityFilter().prepare(group, view), view) == ["able"]


def test_a_health_check_that_is_switched_off_needs_nothing() -> None:
    task = make_task("t")
    task.spec.container.healthcheck.test.append("NONE")

    assert AbilityFilter().prepare(make_group(sample=task), make_view([])) is None


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        (lambda spec: spec.resource_references.add(resource_type=ResourceType.SECRET), "secrets"),
        (lambda spec: spec.resource_references.add(resource_type=ResourceType.CONFIG), "configs"),
        (lambda spec: spec.generic.payload.Pack(ProcessSpec(health=ProcessHealth(command=["x"]))), "healthcheck"),
        (lambda spec: spec.generic.payload.Pack(ProcessSpec(pids_limit=1)), "pids-limit"),
        (lambda spec: spec.generic.payload.Pack(ProcessSpec(ulimits=[ProcessUlimit(name="core")])), "ulimits"),
    ],
)
def test_a_generic_runtime_needs_abilities_of_its_own_executor(
    change: Callable[[TaskSpec], object], needed: str
) -> None:
    spec = TaskSpec()
    spec.generic.kind = "process"
    change(spec)
    view = make_view([able("able", f"process:{needed}", "container:"), able("unable", "process:logs")])

    assert passing(AbilityFilter().prepare(make_group(spec), view), view) == ["able"]


def test_a_payload_that_is_broken_is_the_executors_to_refuse() -> None:
    spec = TaskSpec()
    spec.generic.kind = "process"
    spec.generic.payload.Pack(ProcessSpec())
    spec.generic.payload.value = b"\xff\xff"

    assert AbilityFilter().prepare(make_group(spec), make_view([])) is None


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
    filters = swarmcore_scheduler_filters()[1:]

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
