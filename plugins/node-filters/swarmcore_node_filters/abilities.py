"""What a task needs of an executor: secrets, networks, limits, …"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from google.protobuf.message import DecodeError

from swarmcore.api.process_pb2 import ProcessSpec
from swarmcore.api.specs_pb2 import ContainerSpec, TaskSpec
from swarmcore.api.types_pb2 import Mount, PortConfig, Privileges, ResourceType
from swarmcore.plugin.abilities import stated
from swarmcore.plugin.scheduling import ClusterView, Mask, NodeView, Reasoned, TaskGroup

_SILENT = "?"


class AbilityFilter:
    """The node's executor for the runtime must be able to do what the task needs. One that states nothing passes."""

    name, order, dynamic = "ability", 50, False

    def prepare(self, group: TaskGroup, view: ClusterView) -> Reasoned | None:
        wanted = frozenset(_needs(group))
        if not wanted:
            return None
        mask, lacking = 0, set[str]()
        by_abilities = view.attribute(f"node-filters:abilities:{group.runtime}", partial(_abilities, group.runtime))
        for abilities, nodes in by_abilities.items():
            missing = wanted.difference(abilities.split(",")) if abilities != _SILENT else ()
            if missing:
                lacking.update(missing)
            else:
                mask |= nodes
        return Reasoned(Mask(mask), partial(_explain, ", ".join(sorted(lacking))))

    def explain(self, nodes: int) -> str:
        return _explain("what the task needs", nodes)


def _explain(what: str, nodes: int) -> str:
    return f"executor without {what} on {nodes} node{'s' if nodes != 1 else ''}"


def _abilities(runtime: str, node: NodeView) -> str:
    found = stated(node.node.description, runtime)
    return ",".join(sorted(found)) if found is not None else _SILENT


def _needs(group: TaskGroup) -> Iterator[str]:
    spec, sample = group.spec, group.sample
    if spec.networks or sample.networks:
        yield "networks"
    for port in sample.endpoint.ports:
        yield "ingress-ports" if port.publish_mode == PortConfig.INGRESS else "host-ports"
    if spec.log_driver.name not in ("", "none"):
        yield "log-drivers"
    for reference in spec.resource_references:
        if reference.resource_type == ResourceType.SECRET:
            yield "secrets"
        elif reference.resource_type == ResourceType.CONFIG:
            yield "configs"
    yield from _of_resources(spec)
    if spec.WhichOneof("runtime") == "container":
        yield from _of_container(spec.container)
    elif spec.generic.payload.Is(ProcessSpec.DESCRIPTOR):
        yield from _of_process(spec)


def _of_resources(spec: TaskSpec) -> Iterator[str]:
    resources = spec.resources
    if resources.limits.nano_cpus or resources.limits.memory_bytes:
        yield "limits"
    if resources.HasField("swap_bytes"):
        yield "swap"
    if resources.HasField("memory_swappiness"):
        yield "swappiness"


def _of_container(container: ContainerSpec) -> Iterator[str]:
    if container.secrets:
        yield "secrets"
    if container.configs:
        yield "configs"
    for mount in container.mounts:
        yield "cluster-volumes" if mount.type == Mount.CLUSTER else "mounts"
    if container.healthcheck.test and list(container.healthcheck.test) != ["NONE"]:
        yield "healthcheck"
    if container.pidsLimit > 0:
        yield "pids-limit"
    if container.ulimits:
        yield "ulimits"
    if container.sysctls:
        yield "sysctls"
    privileges = container.privileges
    seccomp, selinux = privileges.seccomp.mode, privileges.selinux_context
    if (
        container.capability_add
        or container.capability_drop
        or privileges.no_new_privileges
        or privileges.apparmor.mode
        or seccomp == Privileges.SeccompOpts.UNCONFINED
        or selinux.disable
    ):
        yield "privileges"
    if seccomp == Privileges.SeccompOpts.CUSTOM:
        yield "seccomp"
    if selinux.user or selinux.role or selinux.type or selinux.level:
        yield "selinux"
    if container.isolation or privileges.HasField("credential_spec"):
        yield "isolation"


def _of_process(spec: TaskSpec) -> Iterator[str]:
    process = ProcessSpec()
    try:
        spec.generic.payload.Unpack(process)
    except DecodeError:
        # The executor says what is wrong with it.
        return
    if process.health.command:
        yield "healthcheck"
    if process.pids_limit:
        yield "pids-limit"
    if process.ulimits:
        yield "ulimits"
