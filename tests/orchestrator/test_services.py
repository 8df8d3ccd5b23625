"""Replicated and global services, restarts, nodes and removal, with a fleet that plays scheduler and agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from types import MappingProxyType

import pytest
from swarmcore_restart_policies.policies import DefaultPolicy

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, RestartPolicy, TaskState
from swarmcore.orchestrator import components
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.fleet import Component, Swarm, running_swarm

POLICIES = PluginSet(restart_policies=MappingProxyType({"default": DefaultPolicy()}))
plugins = [POLICIES]


def make(clock: SimulatedClock) -> Sequence[Component]:
    return components(plugins=lambda: plugins[0], clock=clock)


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    plugins[0] = POLICIES
    async with running_swarm(make) as swarm:
        yield swarm


def replicated(replicas: int, **restart: int) -> Service:
    service = Service(id="web")
    service.spec.annotations.name = "web"
    service.spec.replicated.replicas = replicas
    service.spec.task.container.image = "redis:3.0.5"
    if "delay" in restart:
        service.spec.task.restart.delay.seconds = restart["delay"]
        service.spec.task.restart.condition = RestartPolicy.ANY
    service.spec.task.restart.max_attempts = restart.get("max_attempts", 0)
    if not restart:
        service.spec.task.ClearField("restart")
    return service


def everywhere(*constraints: str) -> Service:
    service = Service(id="agent")
    service.spec.annotations.name = "agent"
    service.spec.task.container.image = "agent:1"
    service.spec.task.placement.constraints.extend(constraints)
    getattr(service.spec, "global").SetInParent()
    return service


def slots(tasks: Sequence[Task]) -> list[int]:
    return sorted(task.slot for task in tasks)


async def test_a_service_gets_a_running_task_in_each_slot(swarm: Swarm) -> None:
    await swarm.create_service(replicated(6))

    await swarm.settle()

    assert slots(swarm.running("web")) == [1, 2, 3, 4, 5, 6]
    assert len(swarm.tasks("web")) == 6


async def test_a_new_task_says_what_its_service_says(swarm: Swarm) -> None:
    swarm.fleet.allocates = False
    service = replicated(1)
    service.spec.annotations.labels["tier"] = "front"
    await swarm.create_service(service)

    await swarm.settle()

    (task,) = swarm.tasks("web")
    assert task.status.message == "pending task scheduling"
    assert task.service_annotations.labels["tier"] == "front"
    assert task.spec.container.image == "redis:3.0.5"
    assert task.HasField("spec_version")
    assert task.status.timestamp.seconds == int(swarm.clock.now())


async def test_a_new_task_of_a_service_that_publishes_a_port_is_the_allocators(swarm: Swarm) -> None:
    swarm.fleet.allocates = False
    service = replicated(1)
    service.spec.endpoint.ports.add(target_port=80, published_port=8080)
    await swarm.create_service(service)

    await swarm.settle()

    (task,) = swarm.tasks("web")
    assert (task.status.state, task.status.message) == (TaskState.NEW, "created")


async def test_scaling_up_leaves_running_tasks_alone(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1))
    await swarm.settle()
    (first,) = swarm.running("web")

    await swarm.update_service("web", lambda service: setattr(service.spec.replicated, "replicas", 2500))
    await swarm.settle()

    assert slots(swarm.running("web")) == list(range(1, 2501))
    assert first.id in {task.id for task in swarm.running("web")}
    assert not swarm.service("web").HasField("update_status")


async def test_scaling_down_keeps_the_nodes_balanced_and_forgets_what_stopped(swarm: Swarm) -> None:
    await swarm.create_service(replicated(30))
    await swarm.settle()

    await swarm.update_service("web", lambda service: setattr(service.spec.replicated, "replicas", 6))
    await swarm.advance(1)

    assert Counter(task.node_id for task in swarm.running("web")) == {"n1": 2, "n2": 2, "n3": 2}
    assert len(swarm.tasks("web")) == 6


async def test_scaling_to_zero_leaves_nothing(swarm: Swarm) -> None:
    await swarm.create_service(replicated(2000))
    await swarm.settle()

    await swarm.update_service("web", lambda service: setattr(service.spec.replicated, "replicas", 0))
    await swarm.advance(1)

    assert swarm.tasks("web") == []


async def test_a_removed_service_takes_its_tasks_along_once_they_stopped(swarm: Swarm) -> None:
    await swarm.create_service(replicated(3))
    await swarm.settle()
    swarm.fleet.stops = lambda task: False

    await swarm.remove_service("web")
    await swarm.advance(1)
    lingering = swarm.tasks("web")
    swarm.fleet.stops = lambda task: True
    await swarm.advance(1)

    assert [task.desired_state for task in lingering] == [TaskState.REMOVE] * 3
    assert swarm.tasks("web") == []


async def test_a_task_that_failed_is_restarted_after_the_delay(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1, delay=5))
    await swarm.settle()
    (first,) = swarm.running("web")
    swarm.fleet.fails = lambda task: task.id == first.id

    await swarm.advance(4.5)
    (waiting,) = swarm.wanted("web")
    await swarm.advance(1)

    assert (waiting.desired_state, waiting.slot) == (TaskState.READY, 1)
    assert [task.id for task in swarm.running("web")] == [waiting.id]
    assert waiting.id != first.id


async def test_attempts_are_counted_and_the_last_failure_keeps_the_slot(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1, delay=1, max_attempts=2))
    swarm.fleet.fails = lambda task: True

    await swarm.advance(30)

    assert len(swarm.tasks("web")) == 3
    assert all(task.status.state == TaskState.FAILED for task in swarm.tasks("web"))
    assert swarm.wanted("web") == []


async def test_attempts_are_counted_across_a_change_of_leader(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1, delay=3, max_attempts=2))
    swarm.fleet.fails = lambda task: True
    await swarm.advance(4)

    await swarm.stop()
    swarm.start()
    await swarm.advance(30)

    assert len(swarm.tasks("web")) == 3


async def test_a_new_spec_gives_an_exhausted_slot_another_chance(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1, delay=1, max_attempts=1))
    swarm.fleet.fails = lambda task: task.spec.container.image == "redis:3.0.5"
    await swarm.advance(10)

    await swarm.update_service("web", lambda service: setattr(service.spec.task.container, "image", "redis:3.0.6"))
    await swarm.advance(10)

    assert [task.spec.container.image for task in swarm.running("web")] == ["redis:3.0.6"]


async def test_a_successor_waits_until_the_old_task_stopped_or_a_minute(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1))
    await swarm.settle()
    (old,) = swarm.running("web")
    swarm.fleet.stops = lambda task: False

    await swarm.set_availability(old.node_id, NodeSpec.Availability.DRAIN)
    await swarm.advance(59)
    before = swarm.running("web")
    await swarm.advance(2)

    assert before == []
    assert len(swarm.running("web")) == 1


async def test_draining_a_node_moves_its_tasks_without_delay(swarm: Swarm) -> None:
    await swarm.create_service(replicated(6))
    await swarm.settle()

    await swarm.set_availability("n1", NodeSpec.Availability.DRAIN)
    await swarm.settle()

    assert Counter(task.node_id for task in swarm.running("web")) == {"n2": 3, "n3": 3}
    assert slots(swarm.running("web")) == [1, 2, 3, 4, 5, 6]


async def test_tasks_of_a_node_that_is_down_are_replaced_elsewhere(swarm: Swarm) -> None:
    await swarm.create_service(replicated(6, delay=2))
    await swarm.settle()

    await swarm.set_node_state("n2", NodeStatus.DOWN)
    await swarm.advance(3)

    assert Counter(task.node_id for task in swarm.running("web")) == {"n1": 3, "n3": 3}


@pytest.mark.parametrize("state", [NodeStatus.UNKNOWN, NodeStatus.DISCONNECTED])
async def test_a_node_that_is_only_out_of_touch_keeps_its_tasks(
    swarm: Swarm, state: NodeStatus.State.ValueType
) -> None:
    await swarm.create_service(replicated(6))
    await swarm.settle()
    before = {task.id for task in swarm.running("web")}

    await swarm.set_node_state("n2", state)
    await swarm.advance(10)

    assert {task.id for task in swarm.wanted("web")} == before


async def test_a_paused_node_keeps_its_tasks(swarm: Swarm) -> None:
    await swarm.create_service(replicated(6))
    await swarm.settle()
    before = {task.id for task in swarm.running("web")}

    await swarm.set_availability("n2", NodeSpec.Availability.PAUSE)
    await swarm.advance(10)

    assert {task.id for task in swarm.running("web")} == before


async def test_a_deleted_task_is_made_anew(swarm: Swarm) -> None:
    await swarm.create_service(replicated(3))
    await swarm.settle()
    gone = next(task for task in swarm.running("web") if task.slot == 2)

    await swarm.store.update(lambda tx: tx.task.delete(gone.id))
    await swarm.settle()

    assert slots(swarm.running("web")) == [1, 2, 3]


async def test_a_missing_policy_holds_the_task_says_why_and_goes_on_when_it_is_there(swarm: Swarm) -> None:
    plugins[0] = PluginSet()
    await swarm.create_service(replicated(1))
    await swarm.settle()
    (first,) = swarm.running("web")
    swarm.fleet.fails = lambda task: task.id == first.id

    await swarm.advance(20)
    held = swarm.tasks("web")
    plugins[0] = POLICIES
    await swarm.advance(12)

    assert [task.id for task in held] == [first.id]
    assert held[0].desired_state == TaskState.RUNNING
    assert held[0].status.message == "held: restart/default is not available: no plugin provides it"
    assert len(swarm.running("web")) == 1


async def test_a_slot_keeps_no_more_tasks_than_the_limit(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1, delay=1))
    swarm.fleet.fails = lambda task: True

    await swarm.advance(40)

    assert len(swarm.tasks("web")) <= 6


async def test_a_service_that_went_while_nobody_led_loses_its_tasks(swarm: Swarm) -> None:
    await swarm.create_service(replicated(3))
    await swarm.settle()

    await swarm.stop()
    await swarm.remove_service("web")
    swarm.start()
    await swarm.advance(1)

    assert swarm.tasks("web") == []


async def test_a_restart_that_another_leader_began_is_finished(swarm: Swarm) -> None:
    await swarm.create_service(replicated(1, delay=10))
    await swarm.settle()
    (first,) = swarm.running("web")
    swarm.fleet.fails = lambda task: task.id == first.id
    await swarm.advance(4)

    await swarm.stop()
    swarm.start()
    await swarm.advance(5)
    early = swarm.running("web")
    await swarm.advance(3)

    assert early == []
    assert len(swarm.running("web")) == 1


async def test_a_global_service_runs_on_every_node_that_is_and_comes(swarm: Swarm) -> None:
    await swarm.create_service(everywhere())
    await swarm.settle()

    await swarm.add_nodes("n4")
    await swarm.settle()

    assert sorted(task.node_id for task in swarm.running("agent")) == ["n1", "n2", "n3", "n4"]
    assert {task.slot for task in swarm.running("agent")} == {0}


async def test_a_global_task_comes_and_goes_with_the_constraints_of_its_node(swarm: Swarm) -> None:
    await swarm.create_service(everywhere("node.labels.disk == ssd"))
    await swarm.settle()
    before = swarm.running("agent")

    await swarm.change_node("n2", lambda node: node.spec.annotations.labels.update({"disk": "ssd"}))
    await swarm.settle()
    matching = swarm.running("agent")
    await swarm.change_node("n2", lambda node: node.spec.annotations.labels.clear())
    await swarm.settle()

    assert before == []
    assert [task.node_id for task in matching] == ["n2"]
    assert swarm.running("agent") == []


async def test_a_global_task_leaves_a_drained_node_and_returns(swarm: Swarm) -> None:
    await swarm.create_service(everywhere())
    await swarm.settle()

    await swarm.set_availability("n1", NodeSpec.Availability.DRAIN)
    await swarm.settle()
    drained = sorted(task.node_id for task in swarm.running("agent"))
    await swarm.set_availability("n1", NodeSpec.Availability.ACTIVE)
    await swarm.settle()

    assert drained == ["n2", "n3"]
    assert sorted(task.node_id for task in swarm.running("agent")) == ["n1", "n2", "n3"]


async def test_nothing_new_begins_on_a_paused_node(swarm: Swarm) -> None:
    await swarm.set_availability("n3", NodeSpec.Availability.PAUSE)
    await swarm.create_service(everywhere())

    await swarm.settle()

    assert sorted(task.node_id for task in swarm.wanted("agent")) == ["n1", "n2"]


async def test_a_node_that_waits_to_be_accepted_gets_no_global_task(swarm: Swarm) -> None:
    await swarm.change_node("n3", lambda node: setattr(node.spec, "membership", NodeSpec.Membership.PENDING))
    await swarm.create_service(everywhere())

    await swarm.settle()

    assert sorted(task.node_id for task in swarm.wanted("agent")) == ["n1", "n2"]


async def test_a_global_task_that_failed_is_restarted_on_its_node(swarm: Swarm) -> None:
    await swarm.create_service(everywhere())
    await swarm.settle()
    first = next(task for task in swarm.running("agent") if task.node_id == "n2")
    swarm.fleet.fails = lambda task: task.id == first.id

    await swarm.advance(6)

    assert sorted(task.node_id for task in swarm.running("agent")) == ["n1", "n2", "n3"]


async def test_a_node_that_is_gone_takes_its_global_tasks_along(swarm: Swarm) -> None:
    await swarm.create_service(everywhere())
    await swarm.settle()

    await swarm.store.update(lambda tx: tx.node.delete("n2"))
    await swarm.advance(1)

    assert sorted(task.node_id for task in swarm.tasks("agent")) == ["n1", "n3"]


async def test_a_task_whose_node_no_longer_fits_is_rejected_and_runs_elsewhere(swarm: Swarm) -> None:
    service = replicated(3, delay=1)
    service.spec.task.placement.constraints.append("node.labels.zone != b")
    await swarm.create_service(service)
    await swarm.settle()

    swarm.fleet.allocates = False
    await swarm.change_node("n2", lambda node: node.spec.annotations.labels.update({"zone": "b"}))
    await swarm.settle()

    rejected = [task for task in swarm.tasks("web") if task.status.state == TaskState.REJECTED]
    assert [(task.node_id, task.status.err) for task in rejected] == [
        ("n2", "assigned node no longer meets constraints")
    ]
    assert slots(swarm.wanted("web")) == [1, 2, 3]
