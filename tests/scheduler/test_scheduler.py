"""The driver, on a real store whose agreement is immediate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from swarmcore_constraint_filter import ConstraintFilter
from swarmcore_node_filters import swarmcore_scheduler_filters
from swarmcore_spread_scheduler import SpreadStrategy

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec, TaskSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.errors import NotLeaderError, ResourceExhaustedError
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.scheduler.scheduler import PAUSE_SECONDS, RESYNC_SECONDS, Scheduler
from swarmcore.store.store import LeaderStore, Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.scheduling import make_node, make_plugins, make_service, make_task
from swarmcore.testing.store import running_store

ALL = make_plugins(filters=[ConstraintFilter(), *swarmcore_scheduler_filters()], strategies=[SpreadStrategy()])
BARE = make_plugins(strategies=[SpreadStrategy()])


@asynccontextmanager
async def scheduling(
    store: Store, plugins: Callable[[], PluginSet] = lambda: ALL, clock: SimulatedClock | None = None
) -> AsyncIterator[None]:
    running = asyncio.create_task(Scheduler(plugins=plugins, clock=clock).run(store.writer(1)))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def create(store: Store, objects: Iterable[Node | Service | Task]) -> None:
    def write(tx: Transaction, obj: Node | Service | Task) -> None:
        tx.table(type(obj).__name__.lower()).create(obj)

    assert [error for error in await store.batch(objects, write) if error is not None] == []


async def change(store: Store, id: str, how: Callable[[Task], None]) -> None:
    def write(tx: Transaction) -> None:
        old = tx.task.get(id)
        assert old is not None
        new = Task()
        new.CopyFrom(old)
        how(new)
        tx.task.update(new)

    await store.update(write)


async def change_node(store: Store, id: str, how: Callable[[Node], None]) -> None:
    def write(tx: Transaction) -> None:
        old = tx.node.get(id)
        assert old is not None
        new = Node()
        new.CopyFrom(old)
        how(new)
        tx.node.update(new)

    await store.update(write)


async def until(store: Store, is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        with store.subscribe() as changes:
            while not is_true():
                await changes.get()


def task(store: Store, id: str) -> Task:
    found = store.view.task.get(id)
    assert found is not None
    return found


def is_assigned(store: Store, *ids: str) -> Callable[[], bool]:
    return lambda: all(task(store, id).status.state == TaskState.ASSIGNED for id in ids)


async def test_a_new_task_gets_a_node_and_says_so() -> None:
    async with running_store() as store, scheduling(store):
        await create(store, [make_node("a"), make_service("web"), make_task("t1")])
        await until(store, is_assigned(store, "t1"))

        assert task(store, "t1").node_id == "a"
        assert task(store, "t1").status.message == "scheduler assigned task to node"
        assert task(store, "t1").status.err == ""


async def test_a_preassigned_task_is_confirmed_on_its_node() -> None:
    async with running_store() as store, scheduling(store):
        await create(store, [make_node("a"), make_node("b"), make_service("web"), make_task("t1", node="b")])
        await until(store, is_assigned(store, "t1"))

        assert task(store, "t1").node_id == "b"
        assert task(store, "t1").status.message == "scheduler confirmed task can run on preassigned node"


async def test_what_was_there_before_the_term_is_placed_too() -> None:
    async with running_store() as store:
        tasks = [make_task(f"t{number}") for number in range(10)]
        await create(store, [make_node("a"), make_node("b"), make_service("web"), *tasks])

        async with scheduling(store):
            await until(store, is_assigned(store, *(each.id for each in tasks)))

        assert sorted(task(store, each.id).node_id for each in tasks) == ["a"] * 5 + ["b"] * 5


async def test_a_task_that_fits_nowhere_says_why_and_is_placed_when_a_node_comes() -> None:
    async with running_store() as store, scheduling(store):
        drained = make_node("a", availability=NodeSpec.DRAIN)
        await create(store, [drained, make_service("web"), make_task("t1")])
        await until(store, lambda: task(store, "t1").status.err != "")
        assert task(store, "t1").status.err == "no suitable node (1 node not available for new tasks)"
        assert task(store, "t1").status.state == TaskState.PENDING

        await create(store, [make_node("b")])
        await until(store, is_assigned(store, "t1"))

        assert task(store, "t1").node_id == "b"
        assert task(store, "t1").status.err == ""


async def test_freed_resources_are_used_at_once() -> None:
    spec = TaskSpec()
    spec.resources.reservations.nano_cpus = 3_000_000_000
    async with running_store() as store, scheduling(store):
        await create(store, [make_node("a"), make_service("web"), make_task("t1", spec=spec)])
        await until(store, is_assigned(store, "t1"))
        await create(store, [make_task("t2", spec=spec)])
        await until(store, lambda: task(store, "t2").status.err != "")
        assert task(store, "t2").status.err == "no suitable node (insufficient resources on 1 node)"

        await change(store, "t1", lambda each: setattr(each.status, "state", TaskState.COMPLETE))

        await until(store, is_assigned(store, "t2"))


async def test_constraints_without_their_filter_hold_exactly_the_tasks_that_have_some() -> None:
    spec = TaskSpec()
    spec.placement.constraints.append("node.hostname==a")
    async with running_store() as store, scheduling(store, lambda: BARE):
        tasks = [make_task("t1", spec=spec), make_task("t2", service="plain")]
        await create(store, [make_node("a"), make_service("web"), make_service("plain"), *tasks])
        await until(store, is_assigned(store, "t2"))
        await until(store, lambda: task(store, "t1").status.err != "")

        assert task(store, "t1").status.err == ("held: filter/constraint is not available: no plugin provides it")
        assert task(store, "t1").status.state == TaskState.PENDING


async def test_the_core_alone_places_nothing() -> None:
    async with running_store() as store, scheduling(store, PluginSet):
        await create(store, [make_node("a"), make_service("web"), make_task("t1"), make_task("t2", node="a")])
        await until(store, lambda: all(task(store, id).status.err for id in ("t1", "t2")))

        assert task(store, "t1").status.err == "held: strategy/spread is not available: no plugin provides it"
        assert task(store, "t1").status.state == task(store, "t2").status.state == TaskState.PENDING


async def test_what_is_held_goes_on_when_the_plugin_is_back() -> None:
    plugins = [PluginSet()]
    clock = SimulatedClock()
    async with running_store() as store, scheduling(store, lambda: plugins[0], clock):
        await create(store, [make_node("a"), make_service("web"), make_task("t1")])
        await until(store, lambda: task(store, "t1").status.err != "")

        plugins[0] = ALL
        await clock.advance(RESYNC_SECONDS)

        await until(store, is_assigned(store, "t1"))


async def test_what_waits_is_tried_again_though_other_things_happen_all_the_time() -> None:
    plugins = [PluginSet()]
    clock = SimulatedClock()
    async with running_store() as store, scheduling(store, lambda: plugins[0], clock):
        running = make_task("other", service="other", node="a", state=TaskState.RUNNING)
        await create(store, [make_node("a"), make_service("web"), make_task("t1"), running])
        await until(store, lambda: task(store, "t1").status.err != "")

        plugins[0] = ALL
        for second in range(int(RESYNC_SECONDS) + 1):
            await clock.advance(1.0)
            await change(store, "other", lambda each, at=second: setattr(each.status, "message", f"{at}"))  # type: ignore[misc]

        await until(store, is_assigned(store, "t1"))


@pytest.mark.parametrize("state", [TaskState.NEW, TaskState.PENDING])
async def test_a_task_that_is_not_wanted_before_it_had_a_node_ends(state: TaskState.ValueType) -> None:
    async with running_store() as store, scheduling(store):
        await create(store, [make_service("web"), make_task("t1", state=state)])

        await change(store, "t1", lambda each: setattr(each, "desired_state", TaskState.SHUTDOWN))

        await until(store, lambda: task(store, "t1").status.state == TaskState.SHUTDOWN)


async def test_a_task_that_was_never_assigned_and_is_not_wanted_is_shut_down() -> None:
    async with running_store() as store, scheduling(store):
        await create(store, [make_service("web"), make_task("t1")])
        await until(store, lambda: task(store, "t1").status.err == "no suitable node")

        await change(store, "t1", lambda each: setattr(each, "desired_state", TaskState.SHUTDOWN))
        await until(store, lambda: task(store, "t1").status.state == TaskState.SHUTDOWN)

        assert task(store, "t1").status.err == ""
        assert task(store, "t1").node_id == ""


async def test_decisions_about_what_changed_meanwhile_are_dropped_or_made_again() -> None:
    async with running_store() as store:
        await create(store, [make_node("a"), make_node("b"), make_service("web")])
        tasks = [make_task(f"t{number}") for number in range(40)]
        await create(store, tasks)

        class Meddling(LeaderStore):
            """Changes what a decision is about just before it is written."""

            done = False

            async def batch(self, items, write):  # type: ignore[no-untyped-def]
                if not self.done:
                    self.done = True
                    await store.update(lambda tx: tx.task.delete("t0"))
                    await change(store, "t1", lambda each: setattr(each.annotations, "name", "renamed"))
                    await change_node(store, "a", lambda node: setattr(node.spec, "availability", NodeSpec.DRAIN))
                return await super().batch(items, write)

        running = asyncio.create_task(Scheduler(plugins=lambda: ALL).run(Meddling(store, 1)))
        await until(store, is_assigned(store, *(each.id for each in tasks[1:])))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert store.view.task.get("t0") is None
        assert {task(store, each.id).node_id for each in tasks[1:]} == {"b"}


async def test_a_task_that_changed_in_passing_is_placed_all_the_same() -> None:
    async with running_store() as store:
        await create(store, [make_node("a"), make_service("web"), make_task("t1")])

        class Meddling(LeaderStore):
            done = False

            async def batch(self, items, write):  # type: ignore[no-untyped-def]
                if not self.done:
                    self.done = True
                    await change(store, "t1", lambda each: setattr(each.annotations, "name", "renamed"))
                return await super().batch(items, write)

        running = asyncio.create_task(Scheduler(plugins=lambda: ALL).run(Meddling(store, 1)))
        await until(store, is_assigned(store, "t1"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert task(store, "t1").annotations.name == "renamed"


async def test_what_the_store_does_not_take_is_decided_about_again() -> None:
    clock = SimulatedClock()
    async with running_store() as store:
        await create(store, [make_node("a"), make_service("web"), make_task("t1")])
        refused = asyncio.Event()

        class Full(LeaderStore):
            async def batch(self, items, write):  # type: ignore[no-untyped-def]
                if not refused.is_set():
                    refused.set()
                    raise ResourceExhaustedError("the disk is full")
                return await super().batch(items, write)

        running = asyncio.create_task(Scheduler(plugins=lambda: ALL, clock=clock).run(Full(store, 1)))
        await refused.wait()
        await clock.advance(PAUSE_SECONDS)
        await until(store, is_assigned(store, "t1"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_end_of_leadership_ends_the_run() -> None:
    async with running_store() as store:
        await create(store, [make_node("a"), make_service("web"), make_task("t1")])

        with pytest.raises(NotLeaderError):
            await Scheduler(plugins=lambda: ALL).run(store.writer(99))


async def test_a_restored_snapshot_is_taken_as_a_new_beginning() -> None:
    async with running_store() as store, scheduling(store):
        await create(store, [make_node("a"), make_service("web"), make_task("t1")])
        await until(store, is_assigned(store, "t1"))

        store.restore(store.version, list(store.snapshot()))
        await create(store, [make_task("t2")])

        await until(store, is_assigned(store, "t2"))


async def test_nothing_of_a_term_is_left_when_it_ends() -> None:
    before = threading.active_count()
    async with running_store() as store, scheduling(store):
        await create(store, [make_node("a"), make_service("web"), make_task("t1")])
        await until(store, is_assigned(store, "t1"))
        assert threading.active_count() == before + 1

    assert threading.active_count() == before
