"""Jobs: every completion once, failures retried, iterations apart, nothing left behind by a former leader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import MappingProxyType

import pytest
from swarmcore_restart_policies.policies import DefaultPolicy

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import RestartPolicy, TaskState
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


def job(total: int, concurrent: int, *, max_attempts: int = 0) -> Service:
    service = Service(id="job")
    service.spec.annotations.name = "job"
    service.spec.task.container.image = "migrate:1"
    service.spec.task.restart.delay.seconds = 1
    service.spec.task.restart.max_attempts = max_attempts
    service.spec.task.restart.condition = RestartPolicy.ANY
    service.spec.replicated_job.total_completions = total
    service.spec.replicated_job.max_concurrent = concurrent
    return service


def global_job() -> Service:
    service = job(0, 0)
    service.spec.global_job.SetInParent()
    return service


def completed(swarm: Swarm, iteration: int = 0) -> list[Task]:
    return [
        task
        for task in swarm.tasks("job")
        if task.status.state == TaskState.COMPLETE and task.job_iteration.index == iteration
    ]


async def test_a_job_runs_as_many_tasks_at_a_time_as_it_may(swarm: Swarm) -> None:
    swarm.fleet.completes = lambda task: False
    await swarm.create_service(job(10, 3))

    await swarm.settle()

    tasks = swarm.tasks("job")
    assert sorted(task.slot for task in tasks) == [0, 1, 2]
    assert {task.desired_state for task in tasks} == {TaskState.COMPLETE}


async def test_a_job_completes_each_slot_once_and_then_rests(swarm: Swarm) -> None:
    await swarm.create_service(job(10, 3))

    await swarm.advance(5)

    assert sorted(task.slot for task in completed(swarm)) == list(range(10))
    assert len(swarm.tasks("job")) == 10


async def test_a_change_of_leader_runs_nothing_twice(swarm: Swarm) -> None:
    await swarm.create_service(job(10, 3))
    await swarm.settle()

    for _ in range(3):
        await swarm.stop()
        swarm.start()
        await swarm.advance(1)

    assert sorted(task.slot for task in swarm.tasks("job")) == list(range(10))


async def test_a_failed_task_is_tried_again_in_its_slot(swarm: Swarm) -> None:
    failed: list[str] = []

    def fails(task: Task) -> bool:
        if task.slot == 1 and not failed:
            failed.append(task.id)
        return task.id in failed

    swarm.fleet.fails = fails
    await swarm.create_service(job(3, 3))

    await swarm.advance(4)

    assert sorted(task.slot for task in completed(swarm)) == [0, 1, 2]
    assert len(swarm.tasks("job")) == 4


async def test_a_task_that_is_removed_after_a_failure_gets_a_successor(swarm: Swarm) -> None:
    swarm.fleet.fails = lambda task: task.slot == 1
    swarm.fleet.completes = lambda task: False
    await swarm.create_service(job(3, 3))
    await swarm.settle()
    swarm.fleet.fails = lambda task: False
    (again,) = [task for task in swarm.tasks("job") if task.slot == 1 and task.desired_state <= TaskState.COMPLETE]

    await swarm.store.update(lambda tx: tx.task.delete(again.id))
    swarm.fleet.completes = lambda task: True
    await swarm.advance(4)

    assert sorted(task.slot for task in completed(swarm)) == [0, 1, 2]


async def test_a_slot_that_is_given_up_is_not_begun_again(swarm: Swarm) -> None:
    swarm.fleet.fails = lambda task: task.slot == 1
    await swarm.create_service(job(3, 3, max_attempts=2))

    await swarm.advance(20)

    assert sorted(task.slot for task in completed(swarm)) == [0, 2]
    assert len([task for task in swarm.tasks("job") if task.slot == 1]) == 3


async def test_failures_without_end_do_not_pile_up(swarm: Swarm) -> None:
    swarm.fleet.fails = lambda task: True
    await swarm.create_service(job(1, 1))

    await swarm.advance(60)

    assert len(swarm.tasks("job")) <= 7


async def test_an_update_is_another_iteration_and_stops_the_one_before(swarm: Swarm) -> None:
    swarm.fleet.completes = lambda task: task.job_iteration.index == 1
    await swarm.create_service(job(2, 2))
    await swarm.settle()

    await swarm.update_service("job", lambda service: setattr(service.spec.task, "force_update", 1))
    await swarm.advance(5)

    assert sorted(task.slot for task in completed(swarm, 1)) == [0, 1]
    assert {task.job_iteration.index for task in swarm.tasks("job")} == {1}


async def test_a_job_that_may_run_nothing_at_a_time_makes_nothing(swarm: Swarm) -> None:
    await swarm.create_service(job(5, 0))

    await swarm.advance(1)

    assert swarm.tasks("job") == []


async def test_fewer_completions_than_there_are_already_make_nothing(swarm: Swarm) -> None:
    await swarm.create_service(job(5, 5))
    await swarm.advance(2)

    service = Service()
    service.CopyFrom(swarm.service("job"))
    service.spec.replicated_job.total_completions = 2
    await swarm.store.update(lambda tx: tx.service.update(service))
    await swarm.advance(2)

    assert len(swarm.tasks("job")) == 5


async def test_a_global_job_completes_once_on_each_node_that_is_and_comes(swarm: Swarm) -> None:
    await swarm.create_service(global_job())
    await swarm.advance(2)

    await swarm.add_nodes("n4")
    await swarm.advance(2)

    assert sorted(task.node_id for task in completed(swarm)) == ["n1", "n2", "n3", "n4"]
    assert len(swarm.tasks("job")) == 4


async def test_a_global_job_leaves_a_drained_node_and_returns(swarm: Swarm) -> None:
    swarm.fleet.completes = lambda task: False
    await swarm.create_service(global_job())
    await swarm.settle()

    await swarm.set_availability("n1", NodeSpec.Availability.DRAIN)
    await swarm.settle()
    drained = [task for task in swarm.tasks("job") if task.desired_state <= TaskState.COMPLETE]
    swarm.fleet.completes = lambda task: True
    await swarm.set_availability("n1", NodeSpec.Availability.ACTIVE)
    await swarm.advance(2)

    assert sorted(task.node_id for task in drained) == ["n2", "n3"]
    assert sorted(task.node_id for task in completed(swarm)) == ["n1", "n2", "n3"]


async def test_a_global_job_is_given_up_after_its_attempts(swarm: Swarm) -> None:
    service = job(0, 0, max_attempts=2)
    service.spec.global_job.SetInParent()
    swarm.fleet.fails = lambda task: task.node_id == "n2"
    await swarm.create_service(service)

    await swarm.advance(20)

    assert len([task for task in swarm.tasks("job") if task.node_id == "n2"]) == 3
    assert sorted(task.node_id for task in completed(swarm)) == ["n1", "n3"]


async def test_a_removed_job_leaves_nothing(swarm: Swarm) -> None:
    await swarm.create_service(job(3, 2))
    await swarm.advance(2)

    await swarm.remove_service("job")
    await swarm.advance(1)

    assert swarm.tasks("job") == []
