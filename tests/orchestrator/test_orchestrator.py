"""The driver: refused writes, what is not a service's, and nothing left over when there is nothing to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from swarmcore_restart_policies.policies import DefaultPolicy

from swarmcore.api.objects_pb2 import Cluster, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import TaskState, UpdateConfig
from swarmcore.errors import ResourceExhaustedError
from swarmcore.orchestrator import components
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.plugin.restart import Restart, RestartDecision, RestartRecord
from swarmcore.store.changes import Resync
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.fleet import Component, Swarm, running_swarm

POLICIES = PluginSet(restart_policies=MappingProxyType({"default": DefaultPolicy()}))


def make(clock: SimulatedClock) -> Sequence[Component]:
    return components(plugins=lambda: POLICIES, clock=clock)


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    async with running_swarm(make) as swarm:
        yield swarm


def web(replicas: int, id: str = "web") -> Service:
    service = Service(id=id)
    service.spec.annotations.name = id
    service.spec.replicated.replicas = replicas
    return service


async def test_writes_that_are_refused_are_made_once_the_disk_takes_them(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    await swarm.settle()
    real = LeaderStore.batch
    calls = []

    async def refuse(store: LeaderStore, items: Iterable[Any], write: Any) -> list[Exception | None]:
        calls.append(items)
        raise ResourceExhaustedError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(LeaderStore, "batch", refuse)
        await swarm.create_service(web(1500))
        await swarm.advance(3)
    assert LeaderStore.batch is real
    await swarm.advance(2)

    assert 1 < len(calls) < 20
    assert sorted(task.slot for task in swarm.running("web")) == list(range(1, 1501))


async def test_one_service_that_can_not_be_written_does_not_hold_up_another(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LeaderStore.batch

    async def refuse(store: LeaderStore, items: Sequence[Any], write: Any) -> list[Exception | None]:
        def guarded(tx: Any, item: Any) -> object:
            if item[0] == "big":
                raise ResourceExhaustedError("larger than a transaction may be")
            return write(tx, item)

        return await real(store, items, guarded)

    monkeypatch.setattr(LeaderStore, "batch", refuse)
    await swarm.create_service(web(1500, "big"))
    await swarm.create_service(web(3, "small"))
    await swarm.settle()

    assert len(swarm.running("small")) == 3


async def test_tasks_that_could_not_be_deleted_are_deleted_a_moment_later(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LeaderStore.batch
    await swarm.create_service(web(3))
    await swarm.settle()

    async def refuse(store: LeaderStore, items: Sequence[Any], write: Any) -> list[Exception | None]:
        def guarded(tx: Any, item: Any) -> object:
            if isinstance(item, str):
                raise ResourceExhaustedError("the disk is full")
            return write(tx, item)

        return await real(store, items, guarded)

    with monkeypatch.context() as patch:
        patch.setattr(LeaderStore, "batch", refuse)
        await swarm.remove_service("web")
        await swarm.advance(3)
        assert len(swarm.tasks("web")) == 3
    await swarm.advance(3)

    assert swarm.tasks("web") == []


async def test_a_history_of_one_is_kept_to_when_the_new_task_starts_first(swarm: Swarm) -> None:
    def write(tx: Transaction) -> None:
        cluster = Cluster(id="c")
        cluster.spec.annotations.name = "default"
        cluster.spec.orchestration.task_history_retention_limit = 1
        tx.cluster.create(cluster)

    await swarm.store.update(write)
    service = web(2)
    service.spec.update.order = UpdateConfig.START_FIRST
    await swarm.create_service(service)
    await swarm.settle()

    for node in swarm.store.view.node.all():
        await swarm.set_availability(node.id, NodeSpec.PAUSE)
    await swarm.update_service("web", lambda made: setattr(made.spec.task.container, "image", "redis:2"))
    await swarm.advance(2)
    for node in swarm.store.view.node.all():
        await swarm.set_availability(node.id, NodeSpec.ACTIVE)
    await swarm.advance(10)

    assert [task.spec.container.image for task in swarm.tasks("web")] == ["redis:2"] * 2


async def test_what_is_left_on_a_node_that_is_gone_is_given_up(swarm: Swarm) -> None:
    await swarm.create_service(web(3))
    await swarm.settle()
    # A manager that is killed between the node's transaction and the one of its last tasks.
    await swarm.stop()
    await swarm.store.update(lambda tx: tx.node.delete("n1"))
    swarm.start()

    await swarm.advance(10)
    await swarm.remove_service("web")
    await swarm.advance(5)

    assert swarm.tasks("web") == []


class Patient:
    """Restarts after a minute, whatever the spec says."""

    name = "default"

    def decide(
        self, *, task: Task, service: Service | None, history: Sequence[RestartRecord], now: float
    ) -> RestartDecision:
        return Restart(60.0)


async def test_the_delay_that_a_policy_gave_outlives_a_leader() -> None:
    patient = PluginSet(restart_policies=MappingProxyType({"default": Patient()}))
    async with running_swarm(lambda clock: components(plugins=lambda: patient, clock=clock)) as swarm:
        await swarm.create_service(web(1))
        await swarm.settle()
        (first,) = swarm.running("web")
        swarm.fleet.fails = lambda task: task.id == first.id
        await swarm.advance(1)

        await swarm.stop()
        swarm.start()

        await swarm.advance(50)
        assert not swarm.running("web")
        await swarm.advance(12)
        assert len(swarm.running("web")) == 1


async def test_tasks_without_a_service_are_nobodys(swarm: Swarm) -> None:
    task = Task(id="attachment", node_id="n1", desired_state=TaskState.RUNNING)
    task.status.state = TaskState.FAILED

    await swarm.store.update(lambda tx: tx.task.create(task))
    await swarm.advance(10)

    assert "attachment" in swarm.store.view.task


async def test_the_clusters_log_driver_is_taken_as_it_is_now(swarm: Swarm) -> None:
    cluster = Cluster(id="cluster")
    cluster.spec.annotations.name = "default"
    cluster.spec.orchestration.task_history_retention_limit = 5
    await swarm.store.update(lambda tx: tx.cluster.create(cluster))
    await swarm.create_service(web(1))
    await swarm.settle()
    changed = Cluster()
    changed.CopyFrom(swarm.store.view.cluster.all().__iter__().__next__())
    changed.spec.task_defaults.log_driver.name = "journald"

    await swarm.store.update(lambda tx: tx.cluster.update(changed))
    await swarm.update_service("web", lambda service: setattr(service.spec.replicated, "replicas", 2))
    await swarm.settle()

    assert {task.slot: task.log_driver.name for task in swarm.running("web")} == {1: "", 2: "journald"}


async def test_after_a_resync_it_goes_by_what_there_is(swarm: Swarm) -> None:
    await swarm.create_service(web(3))
    await swarm.settle()

    swarm.store._publisher.publish(Resync(swarm.store.version))
    await swarm.update_service("web", lambda service: setattr(service.spec.replicated, "replicas", 5))
    await swarm.settle()

    assert sorted(task.slot for task in swarm.running("web")) == [1, 2, 3, 4, 5]


async def test_a_settled_swarm_writes_nothing(swarm: Swarm) -> None:
    await swarm.create_service(web(50))
    await swarm.advance(2)
    version = swarm.store.version

    await swarm.advance(700, step=50)

    assert swarm.store.version == version
