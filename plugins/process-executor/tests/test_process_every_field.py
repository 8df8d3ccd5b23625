"""Each field that a task of a process has: in what is launched, heeded elsewhere, or refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from swarmcore_process_executor import health, spec
from swarmcore_process_executor.cgroups import CONTROLLERS, Cgroups

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.process_pb2 import ProcessSpec, ProcessUlimit
from swarmcore.api.types_pb2 import PortConfig
from swarmcore.testing.executor_contract.every_field import is_ignored, probes

FOR_MANAGERS = (
    "spec.resources.reservations.",
    "spec.restart.",
    "spec.placement.",
    "spec.force_update",
    # The executor is told what the manager made of it.
    "endpoint.spec.",
    "endpoint.virtual_ips.",
    # A port is the machine's own: nothing has to be done for it.
    "endpoint.ports.name",
    "endpoint.ports.protocol",
    "endpoint.ports.publish_mode",
    # Other runtimes, and what names this one.
    "spec.attachment.",
    "spec.container.",
    "spec.generic.",
)
GROUPS = Cgroups(places={name: Path("/nonexistent") for name in CONTROLLERS})


def prepare(task: Task, field: str) -> None:
    task.spec.generic.kind = "process"
    task.spec.generic.payload.Pack(ProcessSpec(command=["true"]))
    if field.startswith("endpoint.ports"):
        task.endpoint.ports.add(target_port=80, published_port=80, publish_mode=PortConfig.HOST)


def ask(task: Task) -> object:
    asked = spec.parse(task)
    return asked, spec.limits_of(task, asked), spec.ulimits_of(task, asked, GROUPS)


def test_no_field_of_the_task_is_ignored() -> None:
    asked = [
        probe
        for root in ("spec", "endpoint")
        for probe in probes(root, prepare, {})
        if not probe.field.startswith(FOR_MANAGERS)
    ]

    ignored = [f"{probe.field} {probe.value}" for probe in asked if is_ignored(probe, ask)]

    assert ignored == []
    assert len(asked) >= 20


GIVEN = {
    "command": ["sh"],
    "args": ["x"],
    "env": ["A=1"],
    "dir": "a",
    "user": "0:0",
    "stop_signal": "INT",
    "stop_grace_seconds": 3.0,
    "health": {"command": ["true"], "retries": 7},
    "pids_limit": 7,
    "ulimits": [ProcessUlimit(name="core", soft=0, hard=0)],
}


@pytest.mark.parametrize("field", list(ProcessSpec.DESCRIPTOR.fields), ids=lambda field: str(field.name))
def test_no_field_of_the_process_is_ignored(field: FieldDescriptor, tmp_path: Path) -> None:
    def made(process: ProcessSpec) -> object:
        task = Task(id="t")
        prepare(task, "")
        task.spec.generic.payload.Pack(process)
        asked = spec.parse(task)
        launch = spec.resolve(task, asked, spec.user_of(asked), tmp_path, GROUPS)
        stop = spec.stop_signal(asked), spec.grace_seconds(asked)
        return launch.encode(), stop, spec.limits_of(task, asked), health.parse(asked.health)

    base = ProcessSpec(command=["true"])
    given = ProcessSpec(command=["true"])
    given.MergeFrom(ProcessSpec(**{field.name: GIVEN[field.name]}))  # type: ignore[arg-type]
    if field.name == "command":
        given = ProcessSpec(command=["sh"])

    assert made(given) != made(base)


def test_a_log_driver_that_is_the_clusters_default_is_for_others() -> None:
    task = Task(id="t")
    prepare(task, "")
    task.log_driver.name = "syslog"

    assert spec.parse(task).command == ["true"]
