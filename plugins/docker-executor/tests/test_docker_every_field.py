"""Each field that a task has, and each value of its enums: in the request to the engine, or refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from swarmcore_docker_executor.host import Host
from swarmcore_docker_executor.spec import create_request

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Config, Secret, Task
from swarmcore.api.types_pb2 import Mount, PortConfig
from swarmcore.plugin import abilities, containers
from swarmcore.plugin.executor import Dependencies
from swarmcore.plugin.task_files import task_files
from swarmcore.testing.executor_contract.every_field import Probe, is_ignored, probes

SAYS_NOTHING = {
    "spec.container.image": "every task has one",
    "spec.container.mounts.type": "VOLUME is what the base has",
    "endpoint.ports.publish_mode": "HOST is what the base has",
    "spec.container.pull_options.registry_auth": "goes with the pull",
    "spec.container.stop_grace_period": "the executor waits so long itself",
    "endpoint.ports.name": "is for those who read it",
}
"""Fields that are heeded elsewhere than in the request."""
FOR_MANAGERS = (
    "spec.resources.reservations.",
    "spec.restart.",
    "spec.placement.",
    "spec.force_update",
    "spec.resource_references.",
    # The task's own log driver comes of it, or of the cluster's default; its ports of the service's endpoint.
    "spec.log_driver.",
    "endpoint.spec.",
    "endpoint.virtual_ips.",
    # Other runtimes.
    "spec.attachment.",
    "spec.generic.",
)
FILES = ("spec.container.secrets.", "spec.container.configs.")
VALUES: Mapping[str, Any] = {
    "spec.container.hosts": ["1.2.3.4 name"],
    "spec.container.env": ["A=1"],
    "spec.container.secrets.file.uid": ["7"],
    "spec.container.secrets.file.gid": ["7"],
    "spec.container.configs.file.uid": ["7"],
    "spec.container.configs.file.gid": ["7"],
}
ROOTS = ("spec", "endpoint", "log_driver")
APIS = ((1, 41), (1, 50))


def prepare(task: Task, field: str) -> None:
    """What the field needs around it."""
    container = task.spec.container
    container.image = "image"
    if ".mounts." in field:
        mount = container.mounts.add(type=Mount.VOLUME, source="source", target="/target")
        if "bind_options" in field:
            mount.type = Mount.BIND
            mount.bind_options.SetInParent()
        elif "volume_options" in field:
            mount.volume_options.SetInParent()
        elif "tmpfs_options" in field:
            mount.type = Mount.TMPFS
            mount.tmpfs_options.SetInParent()
    elif "ulimits" in field:
        container.ulimits.add(name="nofile")
    elif "healthcheck" in field:
        container.healthcheck.test.extend(["CMD", "true"])
    elif field.endswith("swap_bytes"):
        task.spec.resources.limits.memory_bytes = 1 << 26
    elif field.startswith("endpoint.ports"):
        task.endpoint.ports.add(target_port=80, publish_mode=PortConfig.HOST)
    elif field.startswith(FILES) and "runtime" not in field:
        container.secrets.add(secret_id="s", secret_name="s")  # noqa: S106
        container.configs.add(config_id="s", config_name="s").file.SetInParent()


def is_for_files(probe: Probe) -> bool:
    return probe.field.startswith(FILES) and "runtime" not in probe.field


def is_asked_of_the_engine(probe: Probe) -> bool:
    if is_for_files(probe) or probe.field.startswith(FOR_MANAGERS):
        return False
    # A number is the value that an enum has not yet.
    return probe.field not in SAYS_NOTHING or probe.value.isdigit()


@pytest.mark.parametrize("api", APIS, ids=str)
def test_no_field_is_ignored(api: tuple[int, int]) -> None:
    asked = [probe for root in ROOTS for probe in probes(root, prepare, VALUES) if is_asked_of_the_engine(probe)]

    ignored = [
        f"{probe.field} {probe.value}" for probe in asked if is_ignored(probe, lambda t: create_request(t, api=api))
    ]

    assert ignored == []
    assert len(asked) > 80


def test_no_field_of_a_secret_or_config_is_ignored() -> None:
    asked = [probe for probe in probes("spec", prepare, VALUES) if is_for_files(probe)]
    secret, config = Secret(id="s"), Config(id="s")
    other_secret, other_config = Secret(id="x"), Config(id="x")
    secret.spec.data = config.spec.data = b"one"
    other_secret.spec.data = other_config.spec.data = b"other"
    dependencies = Dependencies(
        secrets={"s": secret, "x": other_secret},
        configs={"s": config, "x": other_config},
    )

    ignored = [probe.field for probe in asked if is_ignored(probe, lambda task: task_files(task, dependencies))]

    assert ignored == []
    assert len(asked) == 12


def test_the_grace_period_is_the_tasks() -> None:
    (probe,) = (each for each in probes("spec", prepare, VALUES) if each.field.endswith("stop_grace_period"))

    assert containers.stop_grace(probe.given) == 7


def test_options_of_a_log_driver_without_a_name_are_for_the_engines_own() -> None:
    task = Task(id=new_id())
    prepare(task, "")
    task.log_driver.options["max-size"] = "1m"

    assert create_request(task, api=(1, 41))["HostConfig"]["LogConfig"] == {"Type": "", "Config": {"max-size": "1m"}}


@pytest.mark.parametrize(("limit", "reserved"), [(0, 4 << 20), (8 << 20, 64 << 20)])
def test_a_reservation_that_the_engine_would_refuse_is_for_placing_only(limit: int, reserved: int) -> None:
    task = Task(id=new_id())
    prepare(task, "")
    task.spec.resources.limits.memory_bytes = limit
    task.spec.resources.reservations.memory_bytes = reserved

    assert "MemoryReservation" not in create_request(task, api=(1, 41))["HostConfig"]


@pytest.mark.parametrize(
    ("info", "lacking"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=selinux"]}, set()),
        ({"SecurityOptions": ["name=seccomp,profile=default"], "CgroupVersion": "2"}, {"selinux", "swappiness"}),
        ({"SecurityOptions": [], "PidsLimit": False}, {"selinux", "seccomp", "pids-limit"}),
        (
            {"SecurityOptions": ["name=seccomp", "name=selinux"], "CpuCfsQuota": False, "SwapLimit": False},
            {"limits", "swap"},
        ),
    ],
)
def test_what_a_host_lacks_is_no_ability(info: dict[str, Any], lacking: set[str]) -> None:
    assert abilities.CONTAINERS - Host.of(info).abilities == lacking


def test_one_port_of_a_container_may_be_several_of_the_host() -> None:
    task = Task(id=new_id())
    prepare(task, "")
    for published in (8080, 8081):
        task.endpoint.ports.add(target_port=80, published_port=published, publish_mode=PortConfig.HOST)

    bindings = create_request(task, api=(1, 41))["HostConfig"]["PortBindings"]

    assert bindings == {"80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}]}
