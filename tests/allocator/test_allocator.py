"""The allocator on a store: NEW to PENDING, ports in services and tasks, reasons where it can't, a change of leader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from swarmcore.allocator.allocator import NO_NETWORKS, Allocator
from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import PortConfig, TaskState
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.fleet import Component, Swarm, running_swarm


def make(clock: SimulatedClock) -> Sequence[Component]:
    return [Allocator(clock=clock)]


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    async with running_swarm(make, nodes=()) as swarm:
        swarm.fleet.allocates = False
        yield swarm


def service(id: str, *published: int, mode: PortConfig.PublishMode.ValueType = PortConfig.INGRESS) -> Service:
    made = Service(id=id)
    made.spec.annotations.name = id
    made.spec.replicated.replicas = 1
    if published:
        made.spec.endpoint.ports.extend(
            PortConfig(target_port=80 + number, published_port=port, publish_mode=mode)
            for number, port in enumerate(published)
        )
    return made


async def add_task(swarm: Swarm, id: str, service_id: str = "", **fields: int) -> None:
    def write(tx: Transaction) -> None:
        task = Task(id=id, service_id=service_id)
        task.desired_state = fields.get("desired", TaskState.RUNNING)  # type: ignore[assignment]
        task.endpoint.SetInParent()
        owner = tx.service.get(service_id)
        if owner is not None and owner.spec.HasField("endpoint"):
            task.endpoint.spec.CopyFrom(owner.spec.endpoint)
        if fields.get("networks"):
            task.spec.networks.add(target="net")
        tx.task.create(task)

    await swarm.store.update(write)


def task(swarm: Swarm, id: str) -> Task:
    found = swarm.store.view.task.get(id)
    assert found is not None
    return found


async def test_a_task_without_ports_goes_on_to_the_scheduler(swarm: Swarm) -> None:
    await swarm.create_service(service("web"))
    await add_task(swarm, "t", "web")

    await swarm.settle()

    assert task(swarm, "t").status.state == TaskState.PENDING
    assert task(swarm, "t").status.message == "pending task scheduling"
    assert task(swarm, "t").status.timestamp.seconds == int(swarm.clock.now())
    assert not swarm.service("web").HasField("endpoint")


async def test_ports_are_given_to_the_service_and_copied_into_its_tasks(swarm: Swarm) -> None:
    await swarm.create_service(service("web", 0, 8080))
    await add_task(swarm, "t", "web")

    await swarm.settle()

    assert [port.published_port for port in swarm.service("web").endpoint.ports] == [30_000, 8080]
    assert task(swarm, "t").endpoint == swarm.service("web").endpoint
    assert task(swarm, "t").endpoint.spec == swarm.service("web").spec.endpoint


async def test_host_ports_reach_the_task(swarm: Swarm) -> None:
    await swarm.create_service(service("web", 8080, mode=PortConfig.HOST))
    await add_task(swarm, "t", "web")

    await swarm.settle()

    assert [port.published_port for port in task(swarm, "t").endpoint.ports] == [8080]


async def test_tasks_wait_for_a_port_say_why_and_go_on_when_it_is_free(swarm: Swarm) -> None:
    await swarm.create_service(service("first", 8080))
    await swarm.settle()
    await swarm.create_service(service("second", 8080))
    await add_task(swarm, "t", "second")
    await swarm.settle()
    waiting = task(swarm, "t").status

    await swarm.remove_service("first")
    await swarm.settle()

    assert (waiting.state, waiting.err) == (
        TaskState.NEW,
        "port 8080/tcp is already in use by service first",
    )
    assert (task(swarm, "t").status.state, task(swarm, "t").status.err) == (TaskState.PENDING, "")


async def test_a_service_that_drops_its_ports_frees_them(swarm: Swarm) -> None:
    await swarm.create_service(service("first", 8080))
    await swarm.settle()
    await swarm.create_service(service("second", 8080))
    await swarm.settle()

    await swarm.update_service("first", lambda changed: changed.spec.ClearField("endpoint"))
    await swarm.settle()

    assert not swarm.service("first").HasField("endpoint")
    assert [port.published_port for port in swarm.service("second").endpoint.ports] == [8080]


async def test_a_service_that_moves_its_port_frees_the_old_one(swarm: Swarm) -> None:
    await swarm.create_service(service("first", 8080))
    await swarm.settle()
    await swarm.create_service(service("second", 8080))
    await swarm.settle()

    await swarm.update_service("first", lambda changed: setattr(changed.spec.endpoint.ports[0], "published_port", 81))
    await swarm.settle()

    assert [port.published_port for port in swarm.service("first").endpoint.ports] == [81]
    assert [port.published_port for port in swarm.service("second").endpoint.ports] == [8080]


async def test_a_service_that_goes_back_to_the_ports_it_has_is_no_longer_refused(swarm: Swarm) -> None:
    await swarm.create_service(service("first", 8080))
    await swarm.create_service(service("second", 81))
    await swarm.settle()

    def publish(port: int, changed: Service) -> None:
        changed.spec.endpoint.ports[0].published_port = port

    for port in (8080, 81):
        await swarm.update_service("second", partial(publish, port))
        await swarm.settle()

    await add_task(swarm, "t", "second")
    await swarm.settle()

    assert task(swarm, "t").status.state == TaskState.PENDING


async def test_a_task_that_asks_for_a_network_stays_new_and_says_why(swarm: Swarm) -> None:
    await swarm.create_service(service("web"))
    await add_task(swarm, "t", "web", networks=1)

    await swarm.settle()

    assert (task(swarm, "t").status.state, task(swarm, "t").status.err) == (TaskState.NEW, NO_NETWORKS)


async def test_the_tasks_of_a_service_with_a_network_stay_new_and_say_why(swarm: Swarm) -> None:
    made = service("web")
    made.spec.networks.add(target="net")
    await swarm.create_service(made)
    await add_task(swarm, "t", "web")

    await swarm.settle()

    assert (task(swarm, "t").status.state, task(swarm, "t").status.err) == (TaskState.NEW, NO_NETWORKS)


async def test_a_task_that_is_not_wanted_any_more_is_left_alone(swarm: Swarm) -> None:
    await swarm.create_service(service("web"))
    await add_task(swarm, "t", "web", desired=TaskState.REMOVE)

    await swarm.settle()

    assert task(swarm, "t").status.state == TaskState.NEW


async def test_another_leader_gives_out_no_port_that_is_taken(swarm: Swarm) -> None:
    await swarm.create_service(service("first", 0, 0))
    await swarm.settle()

    await swarm.stop()
    await swarm.create_service(service("second", 0))
    await add_task(swarm, "t", "second")
    swarm.start()
    await swarm.settle()

    assert [port.published_port for port in swarm.service("first").endpoint.ports] == [30_000, 30_001]
    assert [port.published_port for port in swarm.service("second").endpoint.ports] == [30_002]
    assert task(swarm, "t").status.state == TaskState.PENDING


async def test_many_tasks_at_once(swarm: Swarm) -> None:
    await swarm.create_service(service("web", 0))

    def write(tx: Transaction) -> None:
        for number in range(3000):
            new = Task(id=f"t{number}", service_id="web", desired_state=TaskState.RUNNING)
            tx.task.create(new)

    await swarm.store.update(write)
    await swarm.settle()

    assert {each.status.state for each in swarm.tasks("web")} == {TaskState.PENDING}
