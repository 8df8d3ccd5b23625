"""An agent and a manager over a real socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from swarmcore.agent.agent import Agent, next_backoff
from swarmcore.api.dispatcher_pb2 import SessionMessage, TasksMessage
from swarmcore.api.logbroker_pb2 import SubscriptionMessage
from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeDescription, NodeTLSInfo, TaskState, WeightedPeer
from swarmcore.errors import NodeRemovedError
from swarmcore.plugin.executor import TemporaryError
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.clock import let_the_loop_run
from swarmcore.testing.executors import FakeExecutor
from swarmcore.testing.managers import FakeLogBroker, FakeManager, assignments
from swarmcore.testing.whole_cluster import whole_cluster

RUNNING = TaskState.RUNNING


@pytest.fixture
async def manager() -> AsyncIterator[FakeManager]:
    manager = FakeManager()
    await manager.start()
    yield manager
    await manager.stop()


class Heard:
    """What the node was told."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.roots: list[bytes] = []
        self.managers: list[list[WeightedPeer]] = []
        self.tls_info = NodeTLSInfo(trust_root=b"known")


@asynccontextmanager
async def agent_on(
    manager: FakeManager, folder: Path, executor: FakeExecutor, heard: Heard | None = None
) -> AsyncIterator[Agent]:
    heard = heard if heard is not None else Heard()
    agent = Agent(
        node_id="node",
        executors={"container": executor},
        state_dir=folder,
        connect=manager.connections(),
        hostname="host",
        on_node_change=heard.nodes.append,
        on_root_ca=heard.roots.append,
        on_managers=lambda managers: heard.managers.append(list(managers)),
        tls_info=lambda: heard.tls_info,
    )
    run = asyncio.ensure_future(agent.run())
    yield agent
    run.cancel()
    await asyncio.wait([run])
    if not run.cancelled():
        run.result()


def task(task_id: str = "t") -> Task:
    made = Task(id=task_id, service_id="s", desired_state=RUNNING)
    made.spec.container.image = "redis"
    made.status.state = TaskState.ASSIGNED
    return made


async def assigned(manager: FakeManager, *tasks: Task, streams: int = 1) -> None:
    await manager.until(lambda: len(manager.assignments) >= streams)
    manager.assign(*tasks, complete=True)


def reported(manager: FakeManager, task_id: str, state: int) -> Callable[[], bool]:
    return lambda: manager.state_of(task_id) == state


async def test_a_task_is_assigned_runs_and_is_reported(manager: FakeManager, tmp_path: Path) -> None:
    executor = FakeExecutor()
    async with agent_on(manager, tmp_path, executor) as agent:
        await asyncio.wait_for(agent.wait_ready(), 5)
        await assigned(manager, task())

        await manager.until(reported(manager, "t", RUNNING))
        executor.engine.end("t", 2)
        await manager.until(reported(manager, "t", TaskState.FAILED))

    assert agent.is_ready
    assert manager.statuses["t"].err == "task: non-zero exit (2)"
    assert manager.heartbeats >= 1
    description = manager.registrations[0].description
    assert description.hostname == "host"
    assert ("swarmcore/executor", "container") in [(each.type, each.name) for each in description.engine.plugins]
    assert description.tls_info.trust_root == b"known"


async def test_heartbeats_follow_the_period_that_the_manager_names(manager: FakeManager, tmp_path: Path) -> None:
    manager.period = 0.1
    async with agent_on(manager, tmp_path, FakeExecutor()):
        await manager.until(lambda: manager.heartbeats >= 4)

    assert len(manager.registrations) == 1


async def test_incremental_assignments_follow_the_complete_set(manager: FakeManager, tmp_path: Path) -> None:
    async with agent_on(manager, tmp_path, FakeExecutor()) as agent:
        await assigned(manager, task("a"))
        manager.assign(task("b"))
        manager.assign(task("c"))

        await manager.until(reported(manager, "c", RUNNING))
        assert set(agent.worker.managers) == {"a", "b", "c"}
        assert len(manager.assignments) == 1


async def test_after_a_gap_nothing_is_applied_and_everything_is_asked_for_anew(
    manager: FakeManager, tmp_path: Path
) -> None:
    async with agent_on(manager, tmp_path, FakeExecutor()) as agent:
        await assigned(manager, task("a"))
        await manager.until(reported(manager, "a", RUNNING))

        manager.assign(task("beyond the gap"), gap=True)

        await manager.until(lambda: len(manager.assignments) == 2)
        assert set(agent.worker.managers) == {"a"}
        await assigned(manager, task("a"), task("b"), streams=2)
        await manager.until(reported(manager, "b", RUNNING))
        assert len(manager.registrations) == 1


async def test_a_complete_set_in_the_middle_replaces_everything(manager: FakeManager, tmp_path: Path) -> None:
    executor = FakeExecutor()
    async with agent_on(manager, tmp_path, executor) as agent:
        await assigned(manager, task("a"), task("b"))
        await manager.until(reported(manager, "b", RUNNING))

        manager.assign(task("b"), complete=True)

        await manager.until(lambda: set(agent.worker.managers) == {"b"})
        assert executor.engine.running == {"b"}


async def test_when_the_manager_dies_and_returns_tasks_go_on_and_all_is_reported_again(
    manager: FakeManager, tmp_path: Path
) -> None:
    executor = FakeExecutor()
    async with agent_on(manager, tmp_path, executor):
        await assigned(manager, task("a"), task("b"))
        await manager.until(reported(manager, "a", RUNNING))
        await manager.until(reported(manager, "b", RUNNING))
        await manager.stop()
        executor.engine.end("b", 1)
        manager.statuses.clear()

        await manager.start()

        await manager.until(reported(manager, "a", RUNNING))
        await manager.until(reported(manager, "b", TaskState.FAILED))
        assert executor.engine.running == {"a"}
        assert executor.controllers["a"].calls == ["prepare", "start", "wait"]
        # The manager that returns may know the session still.
        assert [each.session_id for each in manager.registrations] == ["", "session1"]


async def test_a_session_that_the_manager_ends_is_opened_again(manager: FakeManager, tmp_path: Path) -> None:
    async with agent_on(manager, tmp_path, FakeExecutor()):
        await assigned(manager, task())
        await manager.until(reported(manager, "t", RUNNING))

        manager.session_messages.put_nowait((grpc.StatusCode.ABORTED, "node must disconnect"))

        await manager.until(lambda: len(manager.registrations) == 2)


@pytest.mark.parametrize("method", ["Heartbeat", "Assignments", "UpdateTaskStatus"])
async def test_any_part_that_fails_ends_the_session_and_the_next_one_works(
    manager: FakeManager, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager.refuse[method] = (grpc.StatusCode.NOT_FOUND, "node not registered")
    manager.everything = assignments(task(), complete=True)
    async with agent_on(manager, tmp_path, FakeExecutor()):
        await manager.until(lambda: len(manager.registrations) >= 2)
        manager.refuse.clear()

        await manager.until(reported(manager, "t", RUNNING))

    assert "NOT_FOUND: node not registered" in caplog.text


async def test_a_failure_that_comes_again_and_again_is_logged_once(
    manager: FakeManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0
    manager.refuse["Session"] = (grpc.StatusCode.UNAVAILABLE, "not the leader")
    refuse = manager._maybe_refuse

    async def counted(method: str, context: grpc.aio.ServicerContext[object, object]) -> None:
        nonlocal tries
        tries += 1
        await refuse(method, context)

    manager._maybe_refuse = counted  # type: ignore[method-assign]
    async with agent_on(manager, tmp_path, FakeExecutor()) as agent:
        await manager.until(lambda: tries >= 3)
        assert not agent.is_ready

    assert caplog.text.count("not the leader") == 1


async def test_a_node_that_was_removed_ends_with_its_tasks_once_the_leader_says_so(
    manager: FakeManager, tmp_path: Path
) -> None:
    answers, asked = [False, True], 0

    async def is_removed() -> bool:
        nonlocal asked
        asked += 1
        return answers.pop(0)

    executor = FakeExecutor()
    agent = Agent(
        node_id="node",
        executors={"container": executor},
        state_dir=tmp_path,
        connect=manager.connections(),
        is_removed=is_removed,
    )
    run = asyncio.ensure_future(agent.run())
    await manager.until(lambda: manager.assignments)
    manager.assign(task("a"), complete=True)
    await manager.until(reported(manager, "a", RUNNING))
    manager.refuse["Session"] = (grpc.StatusCode.PERMISSION_DENIED, "node n was removed from swarm")
    manager.session_messages.put_nowait((grpc.StatusCode.UNAVAILABLE, "stopping"))

    with pytest.raises(NodeRemovedError, match="its tasks are stopped: to let it join again, remove"):
        await asyncio.wait_for(run, 20)

    assert asked == 2
    assert executor.engine.running == set()


async def test_a_manager_without_assignments_is_served_by_full_lists(manager: FakeManager, tmp_path: Path) -> None:
    manager.refuse["Assignments"] = (grpc.StatusCode.UNIMPLEMENTED, "unknown method")
    async with agent_on(manager, tmp_path, FakeExecutor()) as agent:
        manager.task_lists.put_nowait(TasksMessage(tasks=[task("a"), task("b")]))
        await manager.until(reported(manager, "b", RUNNING))
        manager.task_lists.put_nowait(TasksMessage(tasks=[task("b")]))

        await manager.until(lambda: set(agent.worker.managers) == {"b"})


async def test_a_changed_description_registers_again_under_the_same_session(
    manager: FakeManager, tmp_path: Path
) -> None:
    executor = FakeExecutor()
    async with agent_on(manager, tmp_path, executor) as agent:
        await assigned(manager, task())
        await manager.until(reported(manager, "t", RUNNING))
        executor.description = NodeDescription(hostname="fake")
        executor.description.resources.nano_cpus = 7

        agent.refresh()

        await manager.until(lambda: len(manager.registrations) == 2)
        assert manager.registrations[1].session_id == "session1"
        assert manager.registrations[1].description.resources.nano_cpus == 7
        assert executor.engine.running == {"t"}


async def test_an_engine_that_goes_away_keeps_the_session_and_is_said_once(
    manager: FakeManager, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("swarmcore.agent.agent.UNKNOWN_ENGINE_SECONDS", 0.01)
    executor = FakeExecutor()
    described = 0

    async def away() -> None:
        nonlocal described
        described += 1
        raise TemporaryError("docker does not answer")

    async with agent_on(manager, tmp_path, executor) as agent:
        await assigned(manager, task())
        await manager.until(reported(manager, "t", RUNNING))
        executor.script.acts["describe"] = [away]
        agent.refresh()
        # It is asked again soon by itself, since tasks wait for it.
        await manager.until(lambda: described >= 3)
        executor.script.acts["describe"] = [None]
        await manager.until(lambda: "answers again" in caplog.text)

        assert len(manager.registrations) == 1

    assert caplog.text.count("docker does not answer") == 1


async def test_a_node_says_nothing_of_itself_before_any_engine_has_answered(
    manager: FakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmcore.agent.agent.UNKNOWN_ENGINE_SECONDS", 0.0)
    executor = FakeExecutor()
    executor.script.acts["describe"] = [TemporaryError("away"), None]
    async with agent_on(manager, tmp_path, executor):
        await manager.until(lambda: manager.registrations)

    assert [each.name for each in manager.registrations[0].description.engine.plugins] == ["container"]


async def test_what_the_manager_says_of_the_cluster_reaches_the_node(manager: FakeManager, tmp_path: Path) -> None:
    executor, heard = FakeExecutor(), Heard()
    manager.first = SessionMessage(node=Node(id="node"), RootCA=b"known")
    manager.first.managers.add(weight=10).peer.addr = "m1:4242"
    async with agent_on(manager, tmp_path, executor, heard):
        await manager.until(lambda: heard.nodes)
        assert heard.roots == []
        only_status = SessionMessage(node=Node(id="node"), RootCA=b"other")
        only_status.node.status.message = "x"
        manager.session_messages.put_nowait(only_status)
        await manager.until(lambda: heard.roots == [b"other"])
        drained = SessionMessage(node=Node(id="node"))
        drained.node.spec.annotations.name = "n"
        manager.session_messages.put_nowait(drained)
        await manager.until(lambda: len(heard.nodes) == 2)

    assert [each[0].peer.addr for each in heard.managers if each] == ["m1:4242"]
    assert [node.spec.annotations.name for node in executor.nodes] == ["", "n"]


async def test_two_agents_have_sessions_of_their_own(manager: FakeManager, tmp_path: Path) -> None:
    one, two = FakeExecutor(), FakeExecutor()
    async with agent_on(manager, tmp_path / "one", one):
        await assigned(manager, task("a"))
        async with agent_on(manager, tmp_path / "two", two):
            await assigned(manager, task("b"), streams=2)

            await manager.until(reported(manager, "a", RUNNING))
            await manager.until(reported(manager, "b", RUNNING))

    assert (one.engine.running, two.engine.running) == ({"a"}, {"b"})
    assert {update.session_id for update in manager.updates} == {"session1", "session2"}


async def test_an_agent_that_ends_leaves_tasks_running_and_one_that_leaves_does_not(
    manager: FakeManager, tmp_path: Path
) -> None:
    executor = FakeExecutor()
    async with agent_on(manager, tmp_path, executor):
        await assigned(manager, task())
        await manager.until(reported(manager, "t", RUNNING))
    assert executor.engine.running == {"t"}

    async with agent_on(manager, tmp_path, executor) as again:
        await asyncio.wait_for(again.wait_ready(), 5)
        await again.leave()

    assert executor.engine.tasks == {}


async def test_what_tasks_print_goes_to_the_log_broker(tmp_path: Path) -> None:
    manager, broker, executor = FakeManager(), FakeLogBroker(), FakeExecutor()
    await manager.start(broker=broker)
    executor.lines = {"a": [b"one\n", b"two\n"], "b": [b"three\n"]}
    async with agent_on(manager, tmp_path, executor):
        await assigned(manager, task("a"), task("b"))
        await manager.until(reported(manager, "b", RUNNING))
        once = SubscriptionMessage(id="once")
        once.selector.task_ids.append("a")
        broker.subscriptions.put_nowait(once)
        await manager.until(lambda: "once" in broker.closed)
        assert [line.data for line in broker.published["once"]] == [b"one\n", b"two\n"]
        assert broker.published["once"][0].context.task_id == "a"

        follow = SubscriptionMessage(id="follow")
        follow.selector.service_ids.append("s")
        follow.options.follow = True
        broker.subscriptions.put_nowait(follow)
        await manager.until(lambda: len(broker.published.get("follow", ())) == 3)
        executor.lines["c"] = [b"late\n"]
        manager.assign(task("c"))
        await manager.until(lambda: broker.published["follow"][-1].data == b"late\n")
        broker.subscriptions.put_nowait(SubscriptionMessage(id="follow", close=True))

        assert len(manager.registrations) == 1
    await manager.stop()


def test_the_pause_between_sessions_grows_to_eight_seconds() -> None:
    pauses = [0.0]
    while pauses[-1] < 8:
        pauses.append(next_backoff(pauses[-1]))

    assert [round(pause, 1) for pause in pauses] == [0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 8.0]


@pytest.mark.parametrize("turns", range(1, 9))
async def test_an_agent_that_is_ended_while_its_session_breaks_ends(turns: int) -> None:
    async with whole_cluster(PluginSet()) as cluster:
        machine = await cluster.add_machine("node", NodeDescription())
        await cluster.settle()

        machine.cut()
        await let_the_loop_run(turns)

        async with asyncio.timeout(5):
            await machine.stop()
