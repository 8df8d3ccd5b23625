"""Rolling updates as an operator sees them: order, pace, failures, rollback, a change of leader on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from types import MappingProxyType

import pytest
from swarmcore_restart_policies.policies import DefaultPolicy

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import RestartPolicy, TaskState, UpdateConfig, UpdateStatus
from swarmcore.orchestrator import components
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.fleet import Component, Swarm, running_swarm

POLICIES = PluginSet(restart_policies=MappingProxyType({"default": DefaultPolicy()}))


def make(clock: SimulatedClock) -> Sequence[Component]:
    return components(plugins=lambda: POLICIES, clock=clock)


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    async with running_swarm(make) as swarm:
        yield swarm


def redis(replicas: int, **update: int) -> Service:
    service = Service(id="redis")
    service.spec.annotations.name = "redis"
    service.spec.replicated.replicas = replicas
    service.spec.task.container.image = "redis:3.0.5"
    set_update(service, **update)
    return service


def set_update(
    service: Service,
    *,
    parallelism: int = 0,
    delay: int = 0,
    monitor: int = 5,
    action: int = UpdateConfig.PAUSE,
    order: int = UpdateConfig.STOP_FIRST,
) -> None:
    config = UpdateConfig(parallelism=parallelism)
    config.failure_action = action  # type: ignore[assignment]
    config.order = order  # type: ignore[assignment]
    config.delay.seconds = delay
    config.monitor.seconds = monitor
    service.spec.update.CopyFrom(config)
    service.spec.task.restart.delay.seconds = 1
    service.spec.task.restart.condition = RestartPolicy.ANY


def image(name: str, **update: int) -> Callable[[Service], None]:
    def change(service: Service) -> None:
        service.spec.task.container.image = name
        if update:
            set_update(service, **update)

    return change


def images(tasks: Sequence[Task]) -> list[str]:
    return sorted(task.spec.container.image for task in tasks)


def new_tasks(swarm: Swarm, name: str = "redis:3.0.6") -> list[Task]:
    return [task for task in swarm.tasks("redis") if task.spec.container.image == name]


async def test_all_slots_are_replaced_at_once_by_default(swarm: Swarm) -> None:
    await swarm.create_service(redis(6))
    await swarm.settle()

    await swarm.update_service("redis", image("redis:3.0.6"))
    await swarm.settle()
    state = swarm.update_state("redis")
    await swarm.advance(6)

    assert state == "UPDATING"
    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 6
    status = swarm.service("redis").update_status
    assert (status.state, status.message) == (UpdateStatus.COMPLETED, "update completed")
    assert status.HasField("started_at")
    assert status.HasField("completed_at")


async def test_three_at_a_time_with_twenty_seconds_between(swarm: Swarm) -> None:
    await swarm.create_service(redis(6))
    await swarm.settle()

    await swarm.update_service("redis", image("redis:3.0.6", parallelism=3, delay=20))
    await swarm.advance(19)
    first = images(swarm.running("redis"))
    await swarm.advance(2)
    second = images(swarm.running("redis"))
    await swarm.advance(50)

    assert first == ["redis:3.0.5"] * 3 + ["redis:3.0.6"] * 3
    assert second == ["redis:3.0.6"] * 6
    assert swarm.update_state("redis") == "COMPLETED"


@pytest.mark.parametrize("parallelism", [1, 2, 4])
async def test_never_more_slots_are_down_than_may_be_updated_at_once(swarm: Swarm, parallelism: int) -> None:
    await swarm.create_service(redis(7))
    await swarm.settle()
    lowest = 7

    await swarm.update_service("redis", image("redis:3.0.6", parallelism=parallelism, delay=1))
    for _ in range(200):
        # One step at a time: every state on the way is seen.
        for _ in range(3):
            await swarm.clock.advance(0)
        lowest = min(lowest, len(swarm.running("redis")))
        await swarm.store.update(lambda tx: swarm.fleet.step(tx, swarm.stamp()))
        await swarm.clock.advance(0.2)

    assert lowest == 7 - parallelism
    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 7


async def test_start_first_stops_the_old_task_only_once_the_new_one_runs(swarm: Swarm) -> None:
    await swarm.create_service(redis(3))
    await swarm.settle()
    fewest = 3

    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1, order=UpdateConfig.START_FIRST))
    for _ in range(60):
        await swarm.clock.advance(0.1)
        fewest = min(fewest, len(swarm.running("redis")))
        await swarm.store.update(lambda tx: swarm.fleet.step(tx, swarm.stamp()))
    await swarm.advance(6)

    assert fewest == 3
    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 3
    assert len(swarm.wanted("redis")) == 3
    assert swarm.update_state("redis") == "COMPLETED"


async def test_start_first_keeps_the_healthy_task_where_the_new_one_fails(swarm: Swarm) -> None:
    await swarm.create_service(redis(3))
    await swarm.settle()
    before = {task.id for task in swarm.running("redis")}
    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.6"

    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1, order=UpdateConfig.START_FIRST))
    await swarm.advance(20)

    assert {task.id for task in swarm.running("redis")} == before
    assert swarm.update_state("redis") == "PAUSED"


async def test_stop_first_starts_the_new_task_only_once_the_old_one_stopped(swarm: Swarm) -> None:
    await swarm.create_service(redis(1))
    await swarm.settle()
    swarm.fleet.stops = lambda task: False

    await swarm.update_service("redis", image("redis:3.0.6"))
    await swarm.advance(5)
    (waiting,) = new_tasks(swarm)
    swarm.fleet.stops = lambda task: True
    await swarm.settle()

    assert (waiting.desired_state, waiting.status.state) == (TaskState.READY, TaskState.READY)
    assert [task.id for task in swarm.running("redis")] == [waiting.id]


async def test_a_failure_pauses_the_update_and_names_the_task(swarm: Swarm) -> None:
    await swarm.create_service(redis(4))
    await swarm.settle()
    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.6"

    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1))
    await swarm.advance(30)

    status = swarm.service("redis").update_status
    assert status.state == UpdateStatus.PAUSED
    assert status.message.startswith("update paused due to failure or early termination of task ")
    assert status.message.rsplit(" ", 1)[1] not in {task.id for task in swarm.running("redis")}
    assert images(swarm.running("redis")) == ["redis:3.0.5"] * 3


async def test_a_paused_update_goes_on_with_the_next_spec(swarm: Swarm) -> None:
    await swarm.create_service(redis(4))
    await swarm.settle()
    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.6"
    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1))
    await swarm.advance(30)

    await swarm.update_service("redis", image("redis:3.0.7", parallelism=1))
    await swarm.advance(30)

    assert images(swarm.running("redis")) == ["redis:3.0.7"] * 4
    assert swarm.update_state("redis") == "COMPLETED"


async def test_failures_are_passed_over_where_the_service_says_so(swarm: Swarm) -> None:
    await swarm.create_service(redis(4))
    await swarm.settle()
    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.6" and task.slot == 1

    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1, action=UpdateConfig.CONTINUE))
    await swarm.advance(30)

    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 3
    assert swarm.update_state("redis") == "COMPLETED"


async def test_fewer_failures_than_the_ratio_do_not_stop_an_update(swarm: Swarm) -> None:
    await swarm.create_service(redis(4))
    await swarm.settle()
    failed: list[str] = []

    def fails(task: Task) -> bool:
        if task.spec.container.image == "redis:3.0.6" and task.slot == 1 and not failed:
            failed.append(task.id)
        return task.id in failed

    swarm.fleet.fails = fails

    def change(service: Service) -> None:
        image("redis:3.0.6", parallelism=1)(service)
        service.spec.update.max_failure_ratio = 0.25

    await swarm.update_service("redis", change)
    await swarm.advance(30)

    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 4
    assert swarm.update_state("redis") == "COMPLETED"


async def test_a_failure_within_the_watch_after_the_last_slot_counts(swarm: Swarm) -> None:
    await swarm.create_service(redis(2))
    await swarm.settle()
    await swarm.update_service("redis", image("redis:3.0.6", monitor=10))
    await swarm.advance(5)

    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.6" and task.slot == 2
    await swarm.settle()

    assert swarm.update_state("redis") == "PAUSED"


async def test_a_failure_long_after_the_task_ran_does_not_count(swarm: Swarm) -> None:
    await swarm.create_service(redis(2))
    await swarm.settle()
    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1, delay=20, monitor=2))
    await swarm.advance(10)
    (first,) = [task for task in swarm.running("redis") if task.spec.container.image == "redis:3.0.6"]

    swarm.fleet.fails = lambda task: task.id == first.id
    await swarm.advance(60)

    assert swarm.update_state("redis") == "COMPLETED"


async def test_a_rollback_leaves_the_tasks_on_the_old_spec_alone(swarm: Swarm) -> None:
    await swarm.create_service(redis(6))
    await swarm.settle()
    before = {task.slot: task.id for task in swarm.running("redis")}
    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.6"

    await swarm.update_service("redis", image("redis:3.0.6", parallelism=2, action=UpdateConfig.ROLLBACK))
    await swarm.advance(30)

    service = swarm.service("redis")
    after = {task.slot: task.id for task in swarm.running("redis")}
    assert images(swarm.running("redis")) == ["redis:3.0.5"] * 6
    assert sum(before[slot] == after[slot] for slot in before) == 4
    assert (service.update_status.state, service.update_status.message) == (
        UpdateStatus.ROLLBACK_COMPLETED,
        "rollback completed",
    )
    assert service.spec.task.container.image == "redis:3.0.5"
    assert not service.HasField("previous_spec")


async def test_a_rollback_of_start_first_keeps_every_healthy_task(swarm: Swarm) -> None:
    await swarm.create_service(redis(4))
    await swarm.settle()
    before = {task.id for task in swarm.running("redis")}
    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.6"

    await swarm.update_service(
        "redis",
        image("redis:3.0.6", parallelism=2, action=UpdateConfig.ROLLBACK, order=UpdateConfig.START_FIRST),
    )
    await swarm.advance(30)

    assert {task.id for task in swarm.running("redis")} == before
    assert {task.id for task in swarm.wanted("redis")} == before


async def test_a_rollback_that_fails_too_is_paused(swarm: Swarm) -> None:
    await swarm.create_service(redis(2))
    await swarm.settle()
    await swarm.update_service("redis", image("redis:3.0.6"))
    await swarm.advance(10)

    swarm.fleet.fails = lambda task: task.desired_state == TaskState.RUNNING and len(swarm.tasks("redis")) > 4
    await swarm.update_service("redis", image("redis:3.0.7", action=UpdateConfig.ROLLBACK))
    await swarm.advance(30)

    assert swarm.update_state("redis") == "ROLLBACK_PAUSED"


async def test_a_manual_rollback_completes(swarm: Swarm) -> None:
    await swarm.create_service(redis(2))
    await swarm.settle()
    await swarm.update_service("redis", image("redis:3.0.6"))
    await swarm.advance(10)

    def roll_back(service: Service) -> None:
        service.spec.task.container.image = "redis:3.0.5"
        service.spec_version.index = 0
        service.update_status.state = UpdateStatus.ROLLBACK_STARTED
        service.update_status.message = "manually requested rollback"
        service.update_status.started_at.CopyFrom(swarm.stamp())

    await swarm.update_service("redis", roll_back)
    await swarm.advance(20)

    assert images(swarm.running("redis")) == ["redis:3.0.5"] * 2
    assert swarm.update_state("redis") == "ROLLBACK_COMPLETED"


async def test_another_leader_goes_on_with_the_update(swarm: Swarm) -> None:
    await swarm.create_service(redis(6))
    await swarm.settle()
    await swarm.update_service("redis", image("redis:3.0.6", parallelism=2, delay=10))
    await swarm.advance(3)

    await swarm.stop()
    swarm.start()
    await swarm.advance(5)
    still = images(swarm.running("redis"))
    await swarm.advance(4)
    then = images(swarm.running("redis"))
    await swarm.advance(60)

    assert still == ["redis:3.0.5"] * 4 + ["redis:3.0.6"] * 2
    assert then == ["redis:3.0.5"] * 2 + ["redis:3.0.6"] * 4
    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 6
    assert len(new_tasks(swarm)) == 6
    assert swarm.update_state("redis") == "COMPLETED"


async def test_another_leader_waits_for_the_task_that_its_predecessor_made(swarm: Swarm) -> None:
    await swarm.create_service(redis(3))
    await swarm.settle()
    swarm.fleet.stops = lambda task: False
    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1))
    await swarm.advance(3)

    await swarm.stop()
    swarm.start()
    await swarm.advance(3)
    made = len(new_tasks(swarm))
    swarm.fleet.stops = lambda task: True
    await swarm.advance(10)

    assert made == 1
    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 3


async def test_an_update_in_the_middle_of_an_update_takes_its_place(swarm: Swarm) -> None:
    await swarm.create_service(redis(6))
    await swarm.settle()
    await swarm.update_service("redis", image("redis:3.0.6", parallelism=2, delay=10))
    await swarm.advance(3)

    await swarm.update_service("redis", image("redis:3.0.7", parallelism=0))
    await swarm.advance(10)

    assert images(swarm.running("redis")) == ["redis:3.0.7"] * 6
    assert swarm.update_state("redis") == "COMPLETED"


async def test_scaling_and_another_image_in_one_update(swarm: Swarm) -> None:
    await swarm.create_service(redis(3))
    await swarm.settle()

    def change(service: Service) -> None:
        image("redis:3.0.6")(service)
        service.spec.replicated.replicas = 5

    await swarm.update_service("redis", change)
    await swarm.advance(10)

    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 5
    assert swarm.update_state("redis") == "COMPLETED"


async def test_a_global_service_is_updated_node_by_node(swarm: Swarm) -> None:
    service = redis(0, parallelism=1, delay=5)
    getattr(service.spec, "global").SetInParent()
    await swarm.create_service(service)
    await swarm.settle()

    await swarm.update_service("redis", image("redis:3.0.6"))
    await swarm.advance(2)
    first = images(swarm.running("redis"))
    await swarm.advance(30)

    assert first == ["redis:3.0.5"] * 2 + ["redis:3.0.6"]
    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 3
    assert sorted(task.node_id for task in swarm.running("redis")) == ["n1", "n2", "n3"]
    assert swarm.update_state("redis") == "COMPLETED"


async def test_constraints_that_the_node_satisfies_replace_nothing(swarm: Swarm) -> None:
    await swarm.create_service(redis(3))
    await swarm.settle()
    before = {task.id for task in swarm.running("redis")}

    await swarm.update_service(
        "redis", lambda service: service.spec.task.placement.constraints.append("node.hostname != n9")
    )
    await swarm.advance(10)

    assert {task.id for task in swarm.running("redis")} == before


async def test_an_update_goes_on_through_a_drain(swarm: Swarm) -> None:
    await swarm.create_service(redis(6))
    await swarm.settle()
    await swarm.update_service("redis", image("redis:3.0.6", parallelism=1, delay=2))
    await swarm.advance(3)

    await swarm.set_availability("n1", NodeSpec.Availability.DRAIN)
    await swarm.advance(60)

    assert images(swarm.running("redis")) == ["redis:3.0.6"] * 6
    assert {task.node_id for task in swarm.running("redis")} == {"n2", "n3"}
    assert swarm.update_state("redis") == "COMPLETED"
