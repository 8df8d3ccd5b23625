"""What tasks print, on its way to a manager that is slow, goes away, or asks for what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmcore.agent import logs
from swarmcore.agent.agent import Agent
from swarmcore.agent.logs import MAX_LINE_BYTES, QUEUED_BYTES
from swarmcore.api.logbroker_pb2 import PublishLogsMessage, PublishLogsResponse, SubscriptionMessage
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.plugin.executor import Dependencies, ExecutorError, LogLine, LogOptions, TemporaryError
from swarmcore.testing.executors import FakeController, FakeExecutor
from swarmcore.testing.managers import Context, FakeLogBroker, FakeManager, assignments


class Printer(FakeController):
    """Prints lines without end, and counts those that were taken."""

    printed = 0
    size = 1000
    failure: Exception | None = None
    hangs = False
    options: LogOptions | None = None
    readers = 0

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        kind = type(self)
        kind.readers += 1
        kind.options = options
        try:
            if kind.hangs:
                await asyncio.Event().wait()
            while kind.failure is None:
                kind.printed += 1
                yield LogLine(stream=1, timestamp_ns=kind.printed, data=b"%d" % kind.printed + b"x" * kind.size + b"\n")
                await asyncio.sleep(0)
            raise kind.failure
        finally:
            kind.readers -= 1


class PrinterExecutor(FakeExecutor):
    def __init__(self, kind: type[Printer] = Printer) -> None:
        super().__init__()
        self.kind = type("Printer", (kind,), {})

    async def controller(self, task: Task, dependencies: Dependencies) -> FakeController:
        return self._made(self.kind(self, task, dependencies))


class SlowBroker(FakeLogBroker):
    """Takes nothing before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = asyncio.Event()

    async def PublishLogs(
        self, request_iterator: AsyncIterator[PublishLogsMessage], context: Context
    ) -> PublishLogsResponse:
        await self.takes.wait()
        return await super().PublishLogs(request_iterator, context)


class Stage:
    """An agent with one task that prints, and a manager."""

    def __init__(self, tmp_path: Path, broker: FakeLogBroker, kind: type[Printer] = Printer) -> None:
        self.manager, self.broker, self.executor = FakeManager(), broker, PrinterExecutor(kind)
        self._tmp_path = tmp_path

    async def __aenter__(self) -> Stage:
        await self.manager.start(broker=self.broker)
        self.manager.everything = assignments(_task(), complete=True)
        agent = Agent(
            node_id="node",
            executors={"container": self.executor},
            state_dir=self._tmp_path,
            connect=self.manager.connections(),
        )
        self._running = asyncio.create_task(agent.run())
        await self.manager.until(lambda: self.manager.state_of("a") == TaskState.RUNNING)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.manager.stop()

    def ask(self, id: str = "s", *, follow: bool = True) -> None:
        subscription = SubscriptionMessage(id=id)
        subscription.selector.task_ids.append("a")
        subscription.options.follow = follow
        self.broker.subscriptions.put_nowait(subscription)

    @property
    def kind(self) -> type[Printer]:
        return self.executor.kind

    async def until_quiet(self) -> int:
        """How many lines were taken, once no more are."""
        before = -1
        while before != self.kind.printed or not before:
            before = self.kind.printed
            await asyncio.sleep(0.2)
        return before


def _task() -> Task:
    task = Task(id="a", service_id="s", desired_state=TaskState.RUNNING)
    task.spec.container.image = "image"
    task.status.state = TaskState.ASSIGNED
    return task


async def test_a_manager_that_takes_nothing_stops_the_reading_and_no_line_is_lost(tmp_path: Path) -> None:
    broker = SlowBroker()
    async with Stage(tmp_path, broker) as stage:
        stage.ask()
        held = await stage.until_quiet()

        broker.takes.set()
        await stage.manager.until(lambda: len(broker.published.get("s", ())) > 3 * held)
        broker.subscriptions.put_nowait(SubscriptionMessage(id="s", close=True))
        await stage.manager.until(lambda: stage.kind.readers == 0)

    # What the connection and its buffers hold comes on top.
    assert held * stage.kind.size < 8 * QUEUED_BYTES
    numbers = [int(line.data.split(b"x")[0]) for line in broker.published["s"]]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_subscription_that_is_told_twice_is_served_once(tmp_path: Path) -> None:
    async with Stage(tmp_path, FakeLogBroker()) as stage:
        stage.ask()
        stage.ask()
        await stage.manager.until(lambda: len(stage.broker.published.get("s", ())) > 10)

        assert stage.kind.readers == 1


async def test_what_can_not_be_read_is_said_in_the_stream_and_the_node_is_done(tmp_path: Path) -> None:
    async with Stage(tmp_path, FakeLogBroker()) as stage:
        stage.kind.failure = ExecutorError("the log driver 'none' can't be read")
        stage.ask(follow=False)
        await stage.manager.until(lambda: "s" in stage.broker.closed)

    (line,) = stage.broker.published["s"]
    assert line.data == b"warning: task a: its logs can't be read: the log driver 'none' can't be read\n"
    assert line.attrs[0].value in line.data.decode()


async def test_an_executor_that_hangs_holds_up_no_reader_of_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SILENT_SECONDS", 0.05)
    async with Stage(tmp_path, FakeLogBroker()) as stage:
        stage.kind.hangs = True
        stage.ask(follow=False)
        await stage.manager.until(lambda: "s" in stage.broker.closed)

        (line,) = stage.broker.published["s"]
        assert line.data == b"warning: task a: its logs can't be read: its executor has said nothing for 0.05 s\n"
        assert stage.kind.readers == 0


class AwayAtTimes(Printer):
    """Of an engine that goes away after each three lines, and has them all when it is back."""

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        kind = type(self)
        kind.readers += 1
        last = 3 * kind.readers
        for number in range(options.since_ns or 1, last + 1):
            yield LogLine(stream=1, timestamp_ns=number, data=b"%d" % number)
        if last < 9:
            raise TemporaryError("the engine is away")


async def test_a_follower_reads_on_when_an_engine_that_went_away_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "READ_AGAIN_SECONDS", 0.01)
    async with Stage(tmp_path, FakeLogBroker(), AwayAtTimes) as stage:
        stage.ask()
        await stage.manager.until(lambda: len(stage.broker.published.get("s", ())) == 9 + 2)

    lines = stage.broker.published["s"]
    assert [line.data for line in lines if not line.attrs] == [b"%d" % number for number in range(1, 10)]
    assert [b"the engine is away" in line.data for line in lines if line.attrs] == [True, True]


async def test_a_tail_is_of_tasks_that_were_there_when_it_was_asked_for(tmp_path: Path) -> None:
    async with Stage(tmp_path, FakeLogBroker()) as stage:
        subscription = SubscriptionMessage(id="s")
        subscription.selector.service_ids.append("s")
        subscription.options.follow, subscription.options.tail = True, -1 - 5
        stage.broker.subscriptions.put_nowait(subscription)
        await stage.manager.until(lambda: stage.kind.readers == 1)
        before = stage.kind.options

        late = _task()
        late.id = "late"
        stage.manager.assign(late)
        await stage.manager.until(lambda: stage.kind.readers == 2)

        assert before is not None and before.tail == 5
        assert stage.kind.options is not None and stage.kind.options.tail is None


async def test_a_line_that_no_message_can_hold_ends_that_task_only(tmp_path: Path) -> None:
    async with Stage(tmp_path, FakeLogBroker()) as stage:
        stage.kind.size = MAX_LINE_BYTES + 1
        stage.ask(follow=False)
        await stage.manager.until(lambda: "s" in stage.broker.closed)

        assert b"more than" in stage.broker.published["s"][0].data
        assert len(stage.manager.registrations) == 1


async def test_a_manager_without_logs_costs_no_session(tmp_path: Path) -> None:
    manager = FakeManager()
    await manager.start()
    agent = Agent(
        node_id="node",
        executors={"container": FakeExecutor()},
        state_dir=tmp_path,
        connect=manager.connections(),
    )
    manager.everything = assignments(_task(), complete=True)
    running = asyncio.create_task(agent.run())
    await manager.until(lambda: manager.state_of("a") == TaskState.RUNNING)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await manager.stop()

    assert len(manager.registrations) == 1
