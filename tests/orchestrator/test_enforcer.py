"""Which tasks a node that changed can no longer take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.orchestrator.enforcer import is_other, unfit_tasks
from swarmcore.store.tables import SCHEMA_OF, Table

GIB = 1 << 30


def node_with(memory: int = 4 * GIB, cpus: int = 4) -> Node:
    node = Node(id="n")
    node.description.resources.memory_bytes = memory
    node.description.resources.nano_cpus = cpus * 1_000_000_000
    node.spec.annotations.labels["zone"] = "a"
    return node


def task(id: str, memory: int = 0, cpus: int = 0, *constraints: str) -> Task:
    made = Task(id=id, service_id="web", node_id="n", desired_state=TaskState.RUNNING)
    made.status.state = TaskState.RUNNING
    made.spec.resources.reservations.memory_bytes = memory
    made.spec.resources.reservations.nano_cpus = cpus * 1_000_000_000
    made.spec.placement.constraints.extend(constraints)
    return made


def unfit(node: Node, *tasks: Task, service: Service | None = None) -> list[str]:
    services: Table[Service] = Table(SCHEMA_OF["service"])
    if service is not None:
        services.put(service)
    return [each.id for each in unfit_tasks(node, tasks, services)]


def test_tasks_that_fit_stay() -> None:
    assert unfit(node_with(), task("a", GIB, 1), task("b", 3 * GIB, 3, "node.labels.zone == a")) == []


def test_constraints_of_the_task_count_where_the_service_is_gone() -> None:
    assert unfit(node_with(), task("a", 0, 0, "node.labels.zone == b")) == ["a"]


def test_constraints_of_the_service_as_it_is_now_count() -> None:
    service = Service(id="web")
    service.spec.task.placement.constraints.append("node.labels.zone != a")

    assert unfit(node_with(), task("a"), service=service) == ["a"]
    assert unfit(node_with(), task("a", 0, 0, "node.labels.zone == b"), service=Service(id="web")) == []


def test_what_no_longer_fits_into_memory_or_cpus_goes_and_what_fits_beside_it_stays() -> None:
    tasks = [task("a", 2 * GIB, 1), task("b", 3 * GIB, 1), task("c", 1 * GIB, 4), task("d", GIB, 1)]

    assert unfit(node_with(), *tasks) == ["b", "c"]


def test_what_waits_for_room_on_its_node_is_not_there_yet() -> None:
    waiting = task("b", 3 * GIB, 3)
    waiting.status.state = TaskState.PENDING

    assert unfit(node_with(), task("a", 3 * GIB, 3), waiting) == []


def test_a_generic_resource_that_is_gone_ends_the_scan() -> None:
    node = node_with()
    tasks = [task("a"), task("b", 99 * GIB)]
    tasks[0].assigned_generic_resources.add().named_resource_spec.kind = "gpu"

    assert unfit(node, *tasks) == ["a"]


@pytest.mark.parametrize("availability", [NodeSpec.Availability.PAUSE, NodeSpec.Availability.DRAIN])
def test_only_active_nodes_are_looked_at(availability: NodeSpec.Availability.ValueType) -> None:
    node = node_with(memory=1)
    node.spec.availability = availability

    assert unfit(node, task("a", GIB)) == []


def test_tasks_that_ended_or_are_to_end_are_left_alone() -> None:
    tasks = [task("a", 99 * GIB), task("b", 99 * GIB)]
    tasks[0].status.state = TaskState.FAILED
    tasks[1].desired_state = TaskState.SHUTDOWN

    assert unfit(node_with(), *tasks) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda node: setattr(node.status, "state", NodeStatus.DOWN), False),
        (lambda node: setattr(node.meta.version, "index", 9), False),
        (lambda node: setattr(node.status, "addr", "10.0.0.1"), True),
        (lambda node: node.spec.annotations.labels.update({"zone": "b"}), True),
        (lambda node: setattr(node.description.resources, "memory_bytes", 1), True),
    ],
)
def test_only_what_tasks_can_ask_for_makes_a_node_another(change: Callable[[Node], object], expected: bool) -> None:
    old = node_with()
    new = Node()
    new.CopyFrom(old)
    change(new)

    assert is_other(old, new) is expected
