"""Each field that a task has, and each value of its enums: in the request to the engine, or refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmcore_podman_executor.host import Host
from swarmcore_podman_executor.spec import create_request

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import Mount, PortConfig
from swarmcore.testing.executor_contract.every_field import Probe, is_ignored, probes

HEEDED_ELSEWHERE = {
    "spec.container.image": "goes into the request as the engine's own name of it",
    "spec.container.mounts.type": "VOLUME is what the base has",
    "endpoint.ports.publish_mode": "HOST is what the base has",
    "endpoint.ports.name": "is for those who read it",
    "spec.container.pull_options.registry_auth": "goes with the pull",
    "spec.container.mounts.consistency": "is for machines that share files with a virtual one",
    "spec.container.mounts.bind_options.createmountpoint": "the controller makes the folder",
    "spec.container.mounts.bind_options.readonlynonrecursive": "is what Podman does",
    "spec.container.mounts.volume_options.labels": "the controller makes the volume",
    "spec.container.mounts.volume_options.driver_config.name": "the controller makes the volume",
    "spec.container.mounts.volume_options.driver_config.options": "the controller makes the volume",
}
ELSEWHERE = (
    # The check is worked out beside the image's own; files come with the mounts that carry them.
    "spec.container.healthcheck.",
    "spec.container.secrets.",
    "spec.container.configs.",
    # What managers do.
    "spec.resources.reservations.nano_cpus",
    "spec.resources.reservations.generic.",
    "endpoint.spec.",
    "endpoint.virtual_ips.",
)
VALUES: Mapping[str, Any] = {
    "spec.container.hosts": ["1.2.3.4 name"],
    "spec.container.env": ["A=1"],
    "spec.container.stop_signal": ["INT", "x"],
}


def prepare(task: Task, field: str) -> None:
    container = task.spec.container
    container.image = "image"
    if ".mounts." in field:
        mount = container.mounts.add(type=Mount.VOLUME, source="source", target="/target")
        if "bind_options" in field:
            mount.type = Mount.BIND
            mount.bind_options.SetInParent()
        elif "tmpfs_options" in field:
            mount.type = Mount.TMPFS
            mount.tmpfs_options.SetInParent()
    elif "ulimits" in field:
        container.ulimits.add(name="nofile")
    elif field.endswith("swap_bytes"):
        task.spec.resources.limits.memory_bytes = 1 << 26
    elif field.startswith("endpoint.ports"):
        task.endpoint.ports.add(target_port=80, publish_mode=PortConfig.HOST)


def is_asked_of_the_engine(probe: Probe) -> bool:
    if probe.field.startswith(ELSEWHERE) and not probe.field.endswith(".runtime"):
        return False
    # A number is the value that an enum has not yet.
    return probe.field not in HEEDED_ELSEWHERE or probe.value.isdigit()


def test_no_field_is_ignored() -> None:
    roots = ("spec.container", "spec.resources", "endpoint", "log_driver")
    asked = [probe for root in roots for probe in probes(root, prepare, VALUES) if is_asked_of_the_engine(probe)]

    ignored = [
        f"{probe.field} {probe.value}"
        for probe in asked
        if is_ignored(probe, lambda task: create_request(task, image="image", host=Host(cgroup_v2=False)))
    ]

    assert ignored == []
    assert len(asked) > 70
