"""Assignments, task managers and what becomes of tasks, with a scripted executor and a simulated clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from swarmcore.agent.reporter import Reporter
from swarmcore.agent.task_manager import Deadlines
from swarmcore.agent.worker import Worker
from swarmcore.api.dispatcher_pb2 import AssignmentChange, AssignmentsMessage
from swarmcore.api.objects_pb2 import Config, Secret, Task
from swarmcore.api.types_pb2 import ResourceType, TaskState, TaskStatus
from swarmcore.plugin.executor import (
    TaskPreparedError,
    TaskRejectedError,
    TaskStartedError,
    TemporaryError,
)
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.executors import FakeController, FakeEngine, FakeExecutor

QUICK = Deadlines(short=0.05, status=0.05, remove=0.05, stop_margin=0.05)


class Node:
    """One node's worker, and what it reported."""

    def __init__(self, folder: Path, engine: FakeEngine | None = None) -> None:
        self.clock = SimulatedClock()
        self.executor = FakeExecutor(engine)
        self.reporter = Reporter()
        self.history: dict[str, list[str]] = {}
        self.worker = Worker(
            executors={"container": self.executor},
            folder=folder,
            reporter=self.reporter,
            clock=self.clock,
            deadlines=QUICK,
        )
        put = self.reporter.put

        def noted(task_id: str, status: TaskStatus) -> None:
            self.history.setdefault(task_id, []).append(TaskState.Name(status.state))
            put(task_id, status)

        self.reporter.put = noted  # type: ignore[method-assign]

    def status(self, task_id: str = "t") -> TaskStatus:
        return self.worker.managers[task_id].status

    def controller(self, task_id: str = "t") -> FakeController:
        return self.executor.controllers[task_id]

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while True:
                if fact():
                    return
                await asyncio.sleep(0.001)

    async def reaches(self, state: TaskState.ValueType, task_id: str = "t") -> TaskStatus:
        await self.until(lambda: self.status(task_id).state == state)
        return self.status(task_id)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.worker.start()
    yield node
    await node.worker.aclose()


def task(
    task_id: str = "t",
    desired: TaskState.ValueType = TaskState.RUNNING,
    state: TaskState.ValueType = TaskState.ASSIGNED,
) -> Task:
    made = Task(id=task_id, service_id="s", desired_state=desired)
    made.spec.container.image = "redis"
    made.status.state = state
    return made


def task_with_secret() -> Task:
    made = task()
    made.spec.container.secrets.add(secret_id="s1")  # noqa: S106 - an id
    return made


def complete(*items: Task | Secret | Config) -> AssignmentsMessage:
    return message(AssignmentsMessage.COMPLETE, items)


def incremental(*items: Task | Secret | Config, removed: tuple[Task | Secret | Config, ...] = ()) -> AssignmentsMessage:
    return message(AssignmentsMessage.INCREMENTAL, items, removed)


def message(
    kind: AssignmentsMessage.Type.ValueType,
    items: tuple[Task | Secret | Config, ...],
    removed: tuple[Task | Secret | Config, ...] = (),
) -> AssignmentsMessage:
    made = AssignmentsMessage(type=kind)
    for item, action in [(i, AssignmentChange.UPDATE) for i in items] + [(i, AssignmentChange.REMOVE) for i in removed]:
        change = made.changes.add(action=action)
        if isinstance(item, Task):
            change.assignment.task.CopyFrom(item)
        elif isinstance(item, Secret):
            change.assignment.secret.CopyFrom(item)
        else:
            change.assignment.config.CopyFrom(item)
    return made


# A task's life


async def test_a_task_runs_through_all_states_to_its_end(node: Node) -> None:
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)

    node.executor.engine.end("t", 0)

    status = await node.reaches(TaskState.COMPLETE)
    assert node.history["t"] == ["ACCEPTED", "PREPARING", "READY", "STARTING", "RUNNING", "COMPLETE"]
    assert status.message == "finished" and status.err == ""
    assert status.container.container_id == "c-t"
    assert node.controller().calls == ["prepare", "start", "wait"]


async def test_a_task_that_fails_tells_its_exit_code(node: Node) -> None:
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)

    node.executor.engine.end("t", 3)

    status = await node.reaches(TaskState.FAILED)
    assert status.err == "task: non-zero exit (3)"
    assert status.container.exit_code == 3 and status.container.container_id == "c-t"


async def test_a_task_pauses_at_ready_until_it_is_to_run(node: Node) -> None:
    await node.worker.assign(complete(task(desired=TaskState.READY)))
    await node.reaches(TaskState.READY)
    assert "start" not in node.controller().calls

    await node.worker.assign(incremental(task(desired=TaskState.RUNNING)))

    await node.reaches(TaskState.RUNNING)
    assert node.controller().calls == ["prepare", "update", "start", "wait"]


async def test_preparing_is_not_begun_again_because_the_task_shall_run_by_now(node: Node) -> None:
    pulled = asyncio.Event()
    node.executor.script.acts["prepare"] = [pulled]
    await node.worker.assign(complete(task(desired=TaskState.READY)))
    await node.until(lambda: node.executor.controllers and node.controller().calls == ["prepare"])

    await node.worker.assign(incremental(task(desired=TaskState.RUNNING)))
    pulled.set()

    await node.reaches(TaskState.RUNNING)
    assert node.controller().calls.count("prepare") == 1


@pytest.mark.parametrize("method", ["prepare", "start", "wait"])
async def test_a_call_under_way_is_ended_when_the_task_is_to_stop(node: Node, method: str) -> None:
    node.executor.script.acts[method] = [asyncio.Event()]
    await node.worker.assign(complete(task()))
    await node.until(lambda: node.executor.controllers and method in node.controller().calls)

    await node.worker.assign(incremental(task(desired=TaskState.SHUTDOWN)))

    status = await node.reaches(TaskState.SHUTDOWN)
    assert status.message == "shutdown"
    assert node.controller().calls[-1] == "shutdown"


async def test_steps_that_were_done_before_count_as_success(node: Node) -> None:
    node.executor.script.acts["prepare"] = [TaskPreparedError("exists")]
    node.executor.script.acts["start"] = [TaskStartedError("runs")]

    await node.worker.assign(complete(task()))

    await node.reaches(TaskState.RUNNING)


async def test_a_task_that_shall_stop_before_anything_was_made_needs_no_engine(node: Node) -> None:
    node.executor.script.acts["controller"] = [TemporaryError("engine away")]

    await node.worker.assign(complete(task(desired=TaskState.SHUTDOWN)))

    await node.reaches(TaskState.SHUTDOWN)


async def test_a_lower_desired_state_is_ignored(node: Node) -> None:
    await node.worker.assign(complete(task(desired=TaskState.SHUTDOWN)))
    await node.reaches(TaskState.SHUTDOWN)

    await node.worker.assign(incremental(task(desired=TaskState.RUNNING)))

    assert node.worker.managers["t"].task.desired_state == TaskState.SHUTDOWN


async def test_a_new_version_of_a_running_task_reaches_its_controller(node: Node) -> None:
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    newer = task()
    newer.annotations.name = "renamed"

    await node.worker.assign(incremental(newer))

    await node.until(lambda: node.controller().calls[-2:] == ["update", "wait"])
    assert node.controller().updates[-1].annotations.name == "renamed"
    assert node.executor.engine.running == {"t"}


# Faults


async def test_a_runtime_without_executor_is_refused_by_name(node: Node) -> None:
    other = task()
    other.spec.generic.kind = "process"

    await node.worker.assign(complete(other))

    status = await node.reaches(TaskState.REJECTED)
    assert status.message == "resolving controller failed"
    assert status.err == "this node has no executor for runtime 'process'"


async def test_a_spec_that_the_engine_can_not_honour_is_rejected(node: Node) -> None:
    node.executor.script.acts["controller"] = [TaskRejectedError("container.sysctls is not supported")]

    await node.worker.assign(complete(task()))

    status = await node.reaches(TaskState.REJECTED)
    assert status.err == "container.sysctls is not supported"


@pytest.mark.parametrize(
    ("method", "state", "words"),
    [
        ("controller", TaskState.REJECTED, "RuntimeError: bug"),
        ("prepare", TaskState.REJECTED, "RuntimeError: bug"),
        ("start", TaskState.FAILED, "RuntimeError: bug"),
        ("wait", TaskState.FAILED, "RuntimeError: bug"),
    ],
)
async def test_a_bug_of_the_executor_ends_the_task_and_not_the_agent(
    node: Node, method: str, state: TaskState.ValueType, words: str
) -> None:
    node.executor.scripts["t"].acts[method] = [RuntimeError("bug")]

    await node.worker.assign(complete(task(), task("other")))

    assert (await node.reaches(state)).err == words
    await node.reaches(TaskState.RUNNING, "other")
    assert "t" not in node.executor.engine.running


@pytest.mark.parametrize("method", ["controller", "prepare", "start", "wait"])
async def test_a_call_that_is_cancelled_inside_of_the_executor_has_failed(node: Node, method: str) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    node.executor.script.acts[method] = [cancelled]

    await node.worker.assign(complete(task()))

    await node.until(lambda: node.status().state in (TaskState.REJECTED, TaskState.FAILED))
    assert node.status().err == "RuntimeError: the executor's own call was cancelled"


async def test_what_does_not_work_for_now_is_shown_and_tried_again_ever_more_slowly(node: Node) -> None:
    node.executor.script.acts["prepare"] = [TemporaryError("registry busy"), TemporaryError("registry busy"), None]
    await node.worker.assign(complete(task()))
    await node.until(lambda: node.executor.controllers and node.status().err)
    assert (node.status().state, node.status().err) == (TaskState.PREPARING, "registry busy")

    await node.clock.advance(0.9)
    assert node.controller().calls == ["prepare"]
    await node.clock.advance(0.2)
    await node.until(lambda: node.controller().calls == ["prepare"] * 2)
    await node.clock.advance(1.5)
    assert node.controller().calls == ["prepare"] * 2
    await node.clock.advance(0.6)

    status = await node.reaches(TaskState.RUNNING)
    assert status.err == ""


async def test_an_engine_that_answers_again_is_not_waited_for_any_longer(node: Node) -> None:
    node.executor.script.acts["prepare"] = [TemporaryError("engine away"), None]
    await node.worker.assign(complete(task()))
    await node.until(lambda: node.executor.controllers and node.status().err)

    node.worker.nudge()

    await node.reaches(TaskState.RUNNING)


async def test_a_retry_is_not_waited_for_when_the_task_shall_stop(node: Node) -> None:
    node.executor.script.acts["prepare"] = [TemporaryError("engine away")]
    await node.worker.assign(complete(task()))
    await node.until(lambda: node.executor.controllers and node.status().err)

    await node.worker.assign(incremental(task(desired=TaskState.SHUTDOWN)))

    await node.reaches(TaskState.SHUTDOWN)


async def test_an_executor_that_hangs_costs_its_own_task_only(node: Node) -> None:
    node.executor.scripts["t"].acts["controller"] = [asyncio.Event()]

    await node.worker.assign(complete(task(), task("other")))

    await node.reaches(TaskState.RUNNING, "other")
    await node.until(lambda: node.status().err)
    assert node.status().err == "the executor did not answer 'controller' in time"


async def test_what_does_not_stop_in_time_is_killed(node: Node) -> None:
    node.executor.script.acts["shutdown"] = [asyncio.Event()]
    stubborn = task()
    stubborn.spec.container.stop_grace_period.nanos = 1_000_000
    await node.worker.assign(complete(stubborn))
    await node.reaches(TaskState.RUNNING)
    stubborn.desired_state = TaskState.SHUTDOWN

    await node.worker.assign(incremental(stubborn))

    await node.reaches(TaskState.SHUTDOWN)
    assert node.controller().calls[-2:] == ["shutdown", "terminate"]


# Sets of assignments


async def test_a_complete_set_replaces_what_was_before(node: Node) -> None:
    await node.worker.assign(complete(task("a"), task("b")))
    await node.reaches(TaskState.RUNNING, "b")

    await node.worker.assign(complete(task("a")))

    await node.until(lambda: "b" not in node.worker.managers)
    assert set(node.executor.engine.tasks) == {"a"}
    assert node.executor.controllers["b"].calls[-3:] == ["shutdown", "remove", "aclose"]


async def test_an_incremental_set_changes_only_what_it_names(node: Node) -> None:
    await node.worker.assign(complete(task("a"), task("b")))
    await node.reaches(TaskState.RUNNING, "b")

    await node.worker.assign(incremental(task("c"), removed=(task("a"),)))

    await node.until(lambda: set(node.worker.managers) == {"b", "c"})
    await node.reaches(TaskState.RUNNING, "c")


async def test_the_agents_own_knowledge_of_a_status_is_the_newer_one(node: Node) -> None:
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)

    await node.worker.assign(complete(task(state=TaskState.ASSIGNED)))

    assert node.status().state == TaskState.RUNNING


async def test_a_task_that_comes_back_while_it_is_removed_waits_for_that(node: Node) -> None:
    removing = asyncio.Event()
    node.executor.script.acts["remove"] = [removing]
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    await node.worker.assign(complete())
    await node.until(lambda: "remove" in node.controller().calls)

    await node.worker.assign(incremental(task()))
    removing.set()

    await node.until(lambda: "t" in node.worker.managers and not node.worker.managers["t"].is_removed)
    await node.reaches(TaskState.RUNNING)


async def test_what_can_not_be_removed_for_now_is_removed_later(node: Node) -> None:
    node.executor.script.acts["remove"] = [TemporaryError("engine away"), None]
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    await node.worker.assign(complete())
    await node.until(lambda: "remove" in node.controller().calls)
    assert "t" in node.worker.managers

    await node.clock.advance(2)

    await node.until(lambda: "t" not in node.worker.managers)
    assert node.executor.engine.tasks == {}


async def test_a_removal_waits_no_longer_for_an_engine_that_answers_again(node: Node) -> None:
    node.executor.script.acts["remove"] = [TemporaryError("engine away"), None]
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    await node.worker.assign(complete())
    await node.until(lambda: "remove" in node.controller().calls)
    await asyncio.sleep(0)

    node.worker.nudge()

    await node.until(lambda: "t" not in node.worker.managers)


async def test_secrets_and_configs_are_shown_only_to_those_who_name_them(node: Node) -> None:
    named = task_with_secret()
    named.spec.resource_references.add(resource_id="c1", resource_type=ResourceType.CONFIG)
    stranger = task("stranger")
    secret = Secret(id="s1")
    secret.spec.data = b"geheim"

    await node.worker.assign(complete(named, stranger, secret, Secret(id="s2"), Config(id="c1")))

    await node.reaches(TaskState.RUNNING)
    await node.reaches(TaskState.RUNNING, "stranger")
    seen = node.controller().dependencies
    assert {id: each.spec.data for id, each in seen.secrets.items()} == {"s1": b"geheim"}
    assert set(seen.configs) == {"c1"}
    assert dict(node.controller("stranger").dependencies.secrets) == {}

    await node.worker.assign(incremental(removed=(Secret(id="s1"),)))
    assert dict(seen.secrets) == {}


async def test_a_secret_that_was_made_for_one_task_is_found_under_its_own_id(node: Node) -> None:
    named = task_with_secret()

    await node.worker.assign(complete(named, Secret(id="s1.t")))

    await node.reaches(TaskState.RUNNING)
    assert node.controller().dependencies.secrets["s1"].id == "s1.t"


async def test_no_secret_is_ever_on_disk(node: Node, tmp_path: Path) -> None:
    named = task_with_secret()
    secret = Secret(id="s1")
    secret.spec.data = b"very-secret-indeed"

    await node.worker.assign(complete(named, secret))
    await node.reaches(TaskState.RUNNING)
    await node.worker.flush()

    written = [(tmp_path / name).read_bytes() for name in ("tasks.sqlite", "tasks.sqlite-wal")]
    assert any(b"redis" in data for data in written)
    assert not any(b"very-secret-indeed" in data for data in written)


# The end of the agent, and its return


async def restarted(node: Node, folder: Path) -> Node:
    """Let the agent end and start again: the engine goes on meanwhile."""
    await node.worker.aclose()
    again = Node(folder, node.executor.engine)
    await again.worker.start()
    return again


async def test_a_restart_of_the_agent_restarts_no_task(node: Node, tmp_path: Path) -> None:
    await node.worker.assign(complete(task("a"), task("b")))
    await node.reaches(TaskState.RUNNING, "a")
    await node.reaches(TaskState.RUNNING, "b")

    again = await restarted(node, tmp_path)

    assert again.executor.recovered == [("a", b"handle of a"), ("b", b"handle of b")]
    assert again.executor.engine.running == {"a", "b"}
    await again.until(lambda: again.controller("a").calls == ["wait"])
    assert dict(again.worker.statuses())["a"].state == TaskState.RUNNING
    assert node.executor.controllers["a"].is_closed
    await again.worker.aclose()


async def test_a_task_that_ended_meanwhile_tells_its_true_end(node: Node, tmp_path: Path) -> None:
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    await node.worker.aclose()
    node.executor.engine.end("t", 5)

    again = Node(tmp_path, node.executor.engine)
    await again.worker.start()

    status = await again.reaches(TaskState.FAILED)
    assert status.container.exit_code == 5
    await again.worker.aclose()


async def test_a_task_of_which_nothing_is_left_has_failed(node: Node, tmp_path: Path) -> None:
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    await node.worker.aclose()
    node.executor.engine.tasks.clear()

    again = Node(tmp_path, node.executor.engine)
    await again.worker.start()

    assert (await again.reaches(TaskState.FAILED)).err.startswith("nothing is left of the task")
    await again.worker.aclose()


async def test_a_start_does_not_wait_for_ever_for_an_engine_that_hangs(node: Node, tmp_path: Path) -> None:
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    await node.worker.aclose()

    again = Node(tmp_path, node.executor.engine)
    again.executor.script.acts["recover"] = [asyncio.Event(), None]
    await again.worker.start()
    assert again.status().state == TaskState.RUNNING
    await again.until(lambda: again.status().err)
    await again.clock.advance(2)

    await again.until(lambda: again.executor.controllers and again.controller().calls == ["wait"])
    await again.worker.aclose()


async def test_preparing_waits_after_a_restart_until_its_secrets_have_come_again(node: Node, tmp_path: Path) -> None:
    named = task_with_secret()
    node.executor.script.acts["prepare"] = [asyncio.Event()]
    await node.worker.assign(complete(named, Secret(id="s1")))
    await node.until(lambda: node.executor.controllers and node.controller().calls == ["prepare"])

    again = await restarted(node, tmp_path)
    await again.until(lambda: again.executor.controllers)
    assert again.controller().calls == []

    await again.worker.assign(complete(named, Secret(id="s1")))
    await again.reaches(TaskState.RUNNING)
    await again.worker.aclose()


async def test_a_removal_is_finished_after_a_restart(node: Node, tmp_path: Path) -> None:
    node.executor.script.acts["remove"] = [TemporaryError("engine away")]
    await node.worker.assign(complete(task()))
    await node.reaches(TaskState.RUNNING)
    await node.worker.assign(complete())
    await node.until(lambda: "remove" in node.controller().calls)

    again = await restarted(node, tmp_path)

    await again.until(lambda: not again.worker.managers)
    assert again.executor.engine.tasks == {}
    assert again.worker.statuses() == []
    await again.worker.aclose()


async def test_a_task_known_to_the_managers_alone_is_looked_for_before_it_is_made_again(tmp_path: Path) -> None:
    first = Node(tmp_path / "one")
    await first.worker.start()
    await first.worker.assign(complete(task()))
    await first.reaches(TaskState.RUNNING)
    await first.worker.aclose()

    # The state folder is lost, the container is not.
    again = Node(tmp_path / "two", first.executor.engine)
    await again.worker.start()
    await again.worker.assign(complete(task(state=TaskState.RUNNING)))

    await again.until(lambda: again.executor.controllers and again.controller().calls == ["wait"])
    await again.worker.aclose()


async def test_leaving_stops_and_removes_everything(node: Node, tmp_path: Path) -> None:
    await node.worker.assign(complete(task("a"), task("b")))
    await node.reaches(TaskState.RUNNING, "a")

    await node.worker.leave()
    await node.worker.assign(complete(task("a")))

    assert node.executor.engine.tasks == {}
    assert node.worker.managers == {}
    again = await restarted(node, tmp_path)
    assert again.worker.managers == {}
    await again.worker.aclose()


async def test_a_hundred_tasks_are_a_hundred_asyncio_tasks(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = len(asyncio.all_tasks())
    names = [f"t{number:03}" for number in range(100)]

    await node.worker.assign(complete(*(task(name) for name in names)))
    for name in names:
        await node.reaches(TaskState.RUNNING, name)

    assert len(asyncio.all_tasks()) - before <= 100
    assert caplog.records == []
