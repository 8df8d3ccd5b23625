"""What a task's container is called, labelled and told, whichever engine runs it. Pure.

Used by executors of container engines, so that tools which read names and labels find the same on each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import ContainerStatus, PortConfig, PortStatus, Privileges
from swarmcore.plugin.executor import TaskRejectedError, TemporaryError
from swarmcore.plugin.known_values import unknown_value
from swarmcore.plugin.task_files import NODE_UNKNOWN
from swarmcore.plugin.task_templates import expand_container, has_templates, task_name
from swarmcore.plugin.templates import TemplateError

LABEL_TASK: Final = "com.docker.swarm.task"
LABEL_TASK_ID: Final = "com.docker.swarm.task.id"
DEFAULT_GRACE_SECONDS: Final = 10.0
MAX_SIGNAL: Final = 64


class Status(Enum):
    """What a container is doing, as far as a task cares."""

    CREATED = "created"
    RUNNING = "running"
    ENDED = "ended"
    REMOVING = "removing"


_STATUSES: Final = {
    "created": Status.CREATED,
    "configured": Status.CREATED,
    "initialized": Status.CREATED,
    "running": Status.RUNNING,
    "paused": Status.RUNNING,
    "restarting": Status.RUNNING,
    "stopping": Status.RUNNING,
    "stopped": Status.ENDED,
    "exited": Status.ENDED,
    "dead": Status.ENDED,
    "removing": Status.REMOVING,
}
"""Docker's words and Podman's."""


def container_name(task: Task) -> str:
    """SwarmKit's name of a task's container: `<service>.<slot or node>.<task id>`."""
    return task_name(task)


def expanded(task: Task, node: Node | None) -> Task:
    """The task with its container's templates expanded. Raises TaskRejectedError, and TemporaryError without node."""
    if not has_templates(task.spec.container):
        return task
    if node is None:
        raise TemporaryError(NODE_UNKNOWN)
    try:
        return expand_container(task, node)
    except TemplateError as error:
        raise TaskRejectedError(str(error)) from error


def labels(task: Task) -> dict[str, str]:
    """Labels of the container: the user's, then SwarmKit's, which nobody can override."""
    return {
        **task.spec.container.labels,
        **task.annotations.labels,
        LABEL_TASK: "",
        LABEL_TASK_ID: task.id,
        "com.docker.swarm.task.name": container_name(task),
        "com.docker.swarm.node.id": task.node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.service.name": task.service_annotations.name,
    }


def environment(task: Task) -> list[str]:
    """The environment as `NAME=value`: the user's, then the generic resources that the task was given."""
    return [*task.spec.container.env, *_generic_resources(task)]


def _generic_resources(task: Task) -> list[str]:
    values: dict[str, list[str]] = {}
    for resource in task.assigned_generic_resources:
        if resource.WhichOneof("resource") == "named_resource_spec":
            named = resource.named_resource_spec
            values.setdefault(named.kind, []).append(named.value)
        else:
            discrete = resource.discrete_resource_spec
            values.setdefault(discrete.kind, []).append(str(discrete.value))
    return [f"DOCKER_RESOURCE_{kind.upper()}={','.join(found)}" for kind, found in values.items()]


def extra_hosts(line: str) -> list[str]:
    """`IP host alias …`, as in a hosts file, in the engines' `host:IP` form."""
    address, *names = line.split() or [""]
    if not names:
        raise TaskRejectedError(f"container.hosts: {line!r} is not an address and its names")
    return [f"{name}:{address}" for name in names]


def seccomp_profile(profile: bytes) -> str:
    """A custom seccomp profile as compact JSON. Raises TaskRejectedError where it is none."""
    try:
        return json.dumps(json.loads(profile), separators=(",", ":"))
    except ValueError as error:
        raise TaskRejectedError("container.privileges.seccomp.profile: is not JSON") from error


def refuse_meaningless(task: Task) -> None:
    """Raise TaskRejectedError for a field that says something and that no container engine could heed."""
    for message, path in (
        (task.spec.container, "container"),
        (task.spec.resources, "resources"),
        (task.endpoint, "endpoint"),
    ):
        unknown = unknown_value(message, path)
        if unknown is not None:
            raise TaskRejectedError(unknown)
    if task.spec.resources.limits.generic:
        raise TaskRejectedError("resources.limits.generic: generic resources are counted, and limit nothing")
    container = task.spec.container
    seccomp = container.privileges.seccomp
    if seccomp.profile and seccomp.mode != Privileges.SeccompOpts.CUSTOM:
        raise TaskRejectedError("container.privileges.seccomp.profile: needs the mode CUSTOM")
    if any(reference.WhichOneof("target") == "runtime" for reference in container.configs):
        raise TaskRejectedError("container.configs.runtime: is for credential specs, which only Windows knows")
    if not is_health_test(container.healthcheck.test):
        # An engine would run no check, and call the container `starting` for ever.
        raise TaskRejectedError(
            "container.healthcheck.test: is neither NONE, nor CMD and words, nor CMD-SHELL and a command"
        )
    signal = container.stop_signal
    if signal.isascii() and signal.isdigit() and not 1 <= int(signal[:4]) <= MAX_SIGNAL:
        # An engine would find out when it is to stop the container.
        raise TaskRejectedError(f"container.stop_signal: {signal!r} is no signal")


def is_health_test(test: Sequence[str]) -> bool:
    """Whether engines know such a check; nothing at all stands for the image's own."""
    if not test:
        return True
    kind, *words = test
    return kind == "NONE" or (kind in ("CMD", "CMD-SHELL") and bool(words) and bool(words[0]))


def stop_grace(task: Task) -> float:
    """Seconds between the stop signal and the kill."""
    container = task.spec.container
    return seconds(container.stop_grace_period) if container.HasField("stop_grace_period") else DEFAULT_GRACE_SECONDS


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def nanoseconds(duration: Duration) -> int:
    return duration.seconds * 1_000_000_000 + duration.nanos


def status(inspected: Mapping[str, Any]) -> Status:
    """What a container is doing. One that its engine itself does not know any more has ended."""
    return _STATUSES.get(str(inspected["State"]["Status"]).lower(), Status.ENDED)


def health(inspected: Mapping[str, Any]) -> str:
    """`starting`, `healthy`, `unhealthy`, or empty; older Podman services call the field otherwise."""
    state = inspected["State"]
    return str((state.get("Health") or state.get("Healthcheck") or {}).get("Status") or "")


def stop_signal(inspected: Mapping[str, Any]) -> str:
    return str((inspected.get("Config") or {}).get("StopSignal") or "SIGTERM")


def has_healthcheck(inspected: Mapping[str, Any]) -> bool:
    """Whether the engine runs a health check in the container."""
    test = ((inspected.get("Config") or {}).get("Healthcheck") or {}).get("Test") or []
    return bool(test) and test != ["NONE"]


def container_status(inspected: Mapping[str, Any]) -> ContainerStatus:
    """What an engine's answer to inspect says of a container; Docker's and Podman's agree here."""
    state = inspected["State"]
    return ContainerStatus(
        container_id=inspected["Id"],
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
    )


def port_status(task: Task, inspected: Mapping[str, Any]) -> PortStatus:
    """Where the ports are that the task publishes on its host; an empty answer to inspect tells of none."""
    published = (inspected.get("NetworkSettings") or {}).get("Ports") or {}
    free = {key: _host_ports(bindings or ()) for key, bindings in published.items()}
    known = PortConfig.Protocol.values()
    ports = [port for port in task.endpoint.ports if port.publish_mode == PortConfig.HOST and port.protocol in known]
    found: dict[int, int] = {}
    # One port of a container may be several of the host: those that are asked for first, then whatever is left.
    for position in sorted(range(len(ports)), key=lambda position: not ports[position].published_port):
        port = ports[position]
        left = free.get(f"{port.target_port}/{PortConfig.Protocol.Name(port.protocol).lower()}", [])
        if left:
            found[position] = port.published_port if port.published_port in left else left[0]
            left.remove(found[position])
    status = PortStatus()
    for position, number in sorted(found.items()):
        port = ports[position]
        status.ports.add(
            name=port.name,
            protocol=port.protocol,
            target_port=port.target_port,
            published_port=number,
            publish_mode=PortConfig.HOST,
        )
    return status


def _host_ports(bindings: Iterable[Mapping[str, Any]]) -> list[int]:
    """Each once: engines may name them for IPv4 and for IPv6."""
    return list(dict.fromkeys(int(binding["HostPort"]) for binding in bindings if binding.get("HostPort")))
