"""When a task has to be replaced for its service to run by its spec."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.orchestrator.dirty import is_dirty

Change = Callable[[Service], object]


def service_at(version: int) -> Service:
    service = Service(id="web")
    service.spec.task.container.image = "redis:3"
    service.spec_version.index = version
    return service


def task_of(service: Service, state: TaskState.ValueType = TaskState.RUNNING) -> Task:
    task = Task(id="t", service_id=service.id, desired_state=TaskState.RUNNING)
    task.spec.CopyFrom(service.spec.task)
    task.spec_version.CopyFrom(service.spec_version)
    task.endpoint.spec.CopyFrom(service.spec.endpoint)
    task.status.state = state
    return task


def auth(service: Service) -> None:
    service.spec.task.container.pull_options.registry_auth = "new"


def constraint(service: Service) -> None:
    service.spec.task.placement.constraints.append("node.labels.disk == ssd")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda service: None, False),
        (lambda service: setattr(service.spec.task.container, "image", "redis:4"), True),
        (lambda service: setattr(service.spec.task, "force_update", 1), True),
        (lambda service: setattr(service.spec.replicated, "replicas", 7), False),
        (lambda service: service.spec.annotations.labels.update({"a": "b"}), False),
        (lambda service: service.spec.endpoint.ports.add(target_port=80), True),
        (lambda service: setattr(service.spec.task.resources.limits, "memory_bytes", 1 << 30), True),
        (auth, False),
        (constraint, True),
    ],
)
def test_what_changed_in_the_spec_decides(change: Change, expected: bool) -> None:
    task = task_of(service_at(1))
    service = service_at(2)
    change(service)

    assert is_dirty(service, task, Node(id="n")) is expected


def test_the_same_spec_version_is_never_dirty() -> None:
    service = service_at(1)
    task = task_of(service)
    task.spec.container.image = "something:else"

    assert not is_dirty(service, task, None)


def test_a_constraint_that_the_node_satisfies_is_no_reason() -> None:
    task = task_of(service_at(1))
    service = service_at(2)
    constraint(service)
    node = Node(id="n")
    node.spec.annotations.labels["disk"] = "ssd"

    assert not is_dirty(service, task, node)
    assert is_dirty(service, task, None)


def test_a_constraint_and_something_else_is_a_reason() -> None:
    task = task_of(service_at(1))
    service = service_at(2)
    constraint(service)
    service.spec.task.container.image = "redis:4"
    node = Node(id="n")
    node.spec.annotations.labels["disk"] = "ssd"

    assert is_dirty(service, task, node)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (TaskState.PREPARING, True),
        (TaskState.READY, False),
        (TaskState.RUNNING, False),
        (TaskState.FAILED, True),
    ],
)
def test_how_the_image_is_fetched_matters_until_it_was(state: TaskState.ValueType, expected: bool) -> None:
    task = task_of(service_at(1), state)
    service = service_at(2)
    auth(service)

    assert is_dirty(service, task, None) is expected


def test_comparing_changes_neither() -> None:
    service, task = service_at(2), task_of(service_at(1))
    auth(service)
    before = service.SerializeToString(deterministic=True), task.SerializeToString(deterministic=True)

    is_dirty(service, task, None)

    assert (service.SerializeToString(deterministic=True), task.SerializeToString(deterministic=True)) == before
