"""The log broker on a real store, with readers and nodes that call it directly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from swarmcore.api.caller import Caller
from swarmcore.api.log_lines import WARNING_ATTR
from swarmcore.api.logbroker_pb2 import (
    ListenSubscriptionsRequest,
    LogMessage,
    LogStream,
    PublishLogsMessage,
    SubscribeLogsRequest,
    SubscriptionMessage,
)
from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeRole, NodeStatus, TaskState
from swarmcore.errors import (
    AbortedError,
    InvalidArgumentError,
    NotFoundError,
    NotLeaderError,
    PermissionDeniedError,
    SwarmError,
    UnavailableError,
)
from swarmcore.logbroker.broker import LogBroker
from swarmcore.logbroker.outbox import MAX_BYTES
from swarmcore.logbroker.term import LISTEN_SECONDS, MAX_SUBSCRIPTIONS, STALL_SECONDS
from swarmcore.store.store import Store
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.store import running_store

SERVICE = "service"


def line(node: str, task: str, data: bytes, at: int = 1) -> LogMessage:
    message = LogMessage(stream=LogStream.LOG_STREAM_STDOUT, data=data)
    message.context.node_id, message.context.task_id, message.context.service_id = node, task, SERVICE
    message.timestamp.FromNanoseconds(at)
    return message


class Reader:
    """Someone who asked for logs."""

    def __init__(self, bench: Bench, request: SubscribeLogsRequest) -> None:
        self.lines: list[bytes] = []
        self.warnings: list[str] = []
        self.failure: SwarmError | None = None
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.task = bench.own(self._run(bench.broker, request))

    async def _run(self, broker: LogBroker, request: SubscribeLogsRequest) -> None:
        context: Any = None
        try:
            async with contextlib.aclosing(broker.SubscribeLogs(request, context)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    for each in message.messages:
                        if each.attrs and each.attrs[0].key == WARNING_ATTR:
                            self.warnings.append(each.attrs[0].value)
                        else:
                            self.lines.append(each.data)
                    await self.may_read.wait()
        except SwarmError as error:
            self.failure = error


class Worker:
    """A node that listens."""

    def __init__(self, bench: Bench, id: str) -> None:
        self.id = id
        self.told: list[SubscriptionMessage] = []
        self.failure: SwarmError | None = None
        self._bench = bench
        self.task = bench.own(self._listen())

    async def _listen(self) -> None:
        context: Any = None
        self._bench.caller = self.id
        messages = self._bench.broker.ListenSubscriptions(ListenSubscriptionsRequest(), context)
        try:
            async with contextlib.aclosing(messages) as stream:  # type: ignore[type-var]
                async for message in stream:
                    self.told.append(message)
        except SwarmError as error:
            self.failure = error

    def publish(self, *messages: PublishLogsMessage | None) -> asyncio.Task[Any]:
        """Send these; None waits for ever."""

        async def requests() -> AsyncIterator[PublishLogsMessage]:
            for message in messages:
                if message is None:
                    await asyncio.Event().wait()
                else:
                    yield message

        async def call() -> Any:
            context: Any = None
            self._bench.caller = self.id
            return await self._bench.broker.PublishLogs(requests(), context)

        return self._bench.own(call())

    def done(self, *lines: LogMessage) -> asyncio.Task[Any]:
        """Answer the newest subscription in full."""
        id = self.told[-1].id
        return self.publish(
            PublishLogsMessage(subscription_id=id, messages=lines), PublishLogsMessage(subscription_id=id, close=True)
        )


class Bench:
    """The broker, leading."""

    def __init__(self, store: Store, clock: SimulatedClock) -> None:
        self.store = store
        self.clock = clock
        self.caller = ""
        self.broker = LogBroker(clock=clock, caller=lambda: Caller(node_id=self.caller, role=NodeRole.WORKER))
        self._tasks: list[asyncio.Task[Any]] = []
        self.leading = self.own(self.broker.run(store.writer(1)))

    def own(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def node(self, id: str, state: NodeStatus.State.ValueType = NodeStatus.READY) -> None:
        node = Node(id=id)
        node.status.state = state
        await self.store.update(lambda tx: tx.node.create(node))

    async def set_state(self, id: str, state: NodeStatus.State.ValueType) -> None:
        def change(tx: Any) -> None:
            node = Node()
            node.CopyFrom(tx.node.get(id))
            node.status.state = state
            tx.node.update(node)

        await self.store.update(change)

    async def task(self, id: str, node_id: str, state: TaskState.ValueType = TaskState.RUNNING) -> None:
        task = Task(id=id, service_id=SERVICE, node_id=node_id)
        task.status.state = state
        await self.store.update(lambda tx: tx.task.create(task))

    async def worker(self, id: str) -> Worker:
        worker = Worker(self, id)
        await let_the_loop_run()
        return worker

    async def read(self, *, follow: bool = False, tail: int = 0, **selector: Any) -> Reader:
        request = SubscribeLogsRequest()
        request.options.follow, request.options.tail = follow, tail
        for name, ids in (selector or {"service_ids": [SERVICE]}).items():
            getattr(request.selector, name).extend(ids)
        reader = Reader(self, request)
        await let_the_loop_run()
        return reader

    async def aclose(self) -> None:
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = SimulatedClock()
    async with running_store(clock.now) as store:
        made = Bench(store, clock)
        await let_the_loop_run()
        yield made
        await made.aclose()


async def test_lines_of_every_node_come_and_the_stream_ends_when_all_are_done(bench: Bench) -> None:
    for number in "12":
        await bench.node(f"n{number}")
        await bench.task(f"t{number}", f"n{number}")
    first, second = await bench.worker("n1"), await bench.worker("n2")
    reader = await bench.read()

    await first.done(line("n1", "t1", b"one\n"))
    await let_the_loop_run()
    assert not reader.task.done()
    await second.done(line("n2", "t2", b"two\n"))
    await reader.task

    assert reader.lines == [b"one\n", b"two\n"]
    assert reader.failure is None
    assert bench.broker.subscriptions == 0


async def test_a_node_that_is_down_is_named_and_the_rest_comes(bench: Bench) -> None:
    await bench.node("n1")
    await bench.node("n2", NodeStatus.DOWN)
    await bench.task("t1", "n1")
    await bench.task("t2", "n2")
    worker = await bench.worker("n1")
    reader = await bench.read()

    await worker.done(line("n1", "t1", b"one\n"))
    await reader.task

    assert reader.lines == [b"one\n"]
    assert str(reader.failure) == (
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
        "node n2 is not available"
    )


async def test_a_node_that_is_only_just_coming_is_waited_for(bench: Bench) -> None:
    await bench.node("n1", NodeStatus.UNKNOWN)
    await bench.task("t1", "n1")
    reader = await bench.read()
    await bench.clock.advance(LISTEN_SECONDS / 2)

    worker = await bench.worker("n1")
    await worker.done(line("n1", "t1", b"one\n"))
    await reader.task

    assert (reader.lines, reader.failure) == ([b"one\n"], None)


async def test_a_node_that_does_not_come_is_given_up(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    reader = await bench.read()

    await bench.clock.advance(LISTEN_SECONDS + 1)

    assert "node n1 is not available" in str(reader.failure)


async def test_a_task_without_a_node_is_named(bench: Bench) -> None:
    await bench.task("t1", "", TaskState.PENDING)

    reader = await bench.read(task_ids=["t1"])
    await reader.task

    assert "task t1 has not been scheduled" in str(reader.failure)


async def test_a_node_that_goes_away_is_named(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    reader = await bench.read()

    worker.task.cancel()
    await reader.task

    assert "node n1 disconnected unexpectedly" in str(reader.failure)


async def test_a_node_that_is_lost_and_keeps_its_streams_open_is_not_waited_for(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    once, following = await bench.read(), await bench.read(follow=True)
    publishing = worker.publish(PublishLogsMessage(subscription_id=worker.told[-1].id), None)

    await bench.set_state("n1", NodeStatus.DOWN)
    await bench.clock.advance(LISTEN_SECONDS + 1)
    await bench.clock.advance(LISTEN_SECONDS)

    assert "node n1 does not answer" in str(once.failure)
    assert following.warnings == ["node n1 does not answer"] and not following.task.done()
    publishing.cancel()


async def test_a_node_that_is_taken_for_lost_and_still_sends_is_waited_for(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    reader = await bench.read()
    await bench.set_state("n1", NodeStatus.DOWN)
    for number in range(4):
        worker.publish(
            PublishLogsMessage(subscription_id=worker.told[-1].id, messages=[line("n1", "t1", b"%d" % number)]), None
        )
        await bench.clock.advance(LISTEN_SECONDS / 2)

    await worker.done(line("n1", "t1", b"last"))
    await reader.task

    assert (reader.lines, reader.failure) == ([b"0", b"1", b"2", b"3", b"last"], None)


async def test_a_follower_gets_the_lines_of_tasks_that_come_later(bench: Bench) -> None:
    await bench.node("n1")
    worker = await bench.worker("n1")
    reader = await bench.read(follow=True)
    assert worker.told == []

    await bench.task("t1", "n1", TaskState.ASSIGNED)
    await bench.clock.advance(1)
    worker.publish(PublishLogsMessage(subscription_id=worker.told[0].id, messages=[line("n1", "t1", b"one\n")]), None)
    await let_the_loop_run()

    assert reader.lines == [b"one\n"]
    assert not reader.task.done()


async def test_a_tail_is_of_what_was_before_and_not_of_tasks_that_come_later(bench: Bench) -> None:
    await bench.node("n1")
    await bench.node("n2")
    first, second = await bench.worker("n1"), await bench.worker("n2")
    await bench.task("t1", "n1")
    await bench.read(follow=True, tail=-1 - 5)

    await bench.task("t2", "n2")
    await let_the_loop_run()

    assert [worker.told[-1].options.tail for worker in (first, second)] == [-6, 0]


async def test_a_follower_whose_node_comes_again_gets_each_line_once(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    before = await bench.worker("n1")
    reader = await bench.read(follow=True, tail=-11)
    lines = [line("n1", "t1", b"%d\n" % number, at=number // 2) for number in range(6)]
    before.publish(PublishLogsMessage(subscription_id=before.told[0].id, messages=lines[:4]), None)
    await let_the_loop_run()

    before.task.cancel()
    await let_the_loop_run()
    after = await bench.worker("n1")
    again = after.told[0]
    after.publish(PublishLogsMessage(subscription_id=again.id, messages=lines[2:]), None)
    await bench.clock.advance(LISTEN_SECONDS + 1)

    assert reader.lines == [each.data for each in lines]
    assert reader.warnings == []
    assert again.options.tail == 0 and again.options.since.ToNanoseconds() == 1


async def test_a_follower_is_told_of_a_node_that_stays_away_and_goes_on(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    reader = await bench.read(follow=True)

    worker.task.cancel()
    await bench.clock.advance(LISTEN_SECONDS + 1)

    assert reader.warnings == ["node n1 disconnected unexpectedly"]
    assert not reader.task.done()


async def test_a_reader_that_leaves_ends_what_its_nodes_send(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    reader = await bench.read(follow=True)
    publishing = worker.publish(PublishLogsMessage(subscription_id=worker.told[0].id, messages=[]), None)
    await let_the_loop_run()

    reader.task.cancel()
    await let_the_loop_run()

    with pytest.raises(AbortedError):
        await publishing
    assert worker.told[-1].close and worker.told[-1].id == worker.told[0].id
    assert bench.broker.subscriptions == 0


async def test_a_reader_that_does_not_read_holds_up_its_node_and_loses_nothing(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    reader = await bench.read()
    reader.may_read.clear()
    id = worker.told[0].id
    data = [b"%06d" % number + b"x" * 60_000 + b"\n" for number in range(3 * MAX_BYTES // 60_000)]
    messages = [PublishLogsMessage(subscription_id=id, messages=[line("n1", "t1", each)]) for each in data]

    publishing = worker.publish(*messages, PublishLogsMessage(subscription_id=id, close=True))
    await let_the_loop_run(500)
    held_up = not publishing.done()
    reader.may_read.set()
    await publishing
    await reader.task

    assert held_up
    assert reader.lines == data


async def test_a_stream_that_nobody_reads_is_closed(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    reader = await bench.read(follow=True)
    reader.may_read.clear()
    id = worker.told[0].id
    big = [line("n1", "t1", b"x" * MAX_BYTES, at=number) for number in (1, 2, 3)]
    publishing = worker.publish(*(PublishLogsMessage(subscription_id=id, messages=[each]) for each in big), None)
    await let_the_loop_run()

    await bench.clock.advance(STALL_SECONDS + 2)

    assert reader.task.done() and publishing.done()
    assert bench.broker.subscriptions == 0


async def test_nodes_publish_their_own_lines_only_and_only_when_asked(bench: Bench) -> None:
    for id in ("n1", "n2"):
        await bench.node(id)
    await bench.task("t1", "n1")
    asked, other = await bench.worker("n1"), await bench.worker("n2")
    reader = await bench.read(follow=True)
    id = asked.told[0].id

    with pytest.raises(NotFoundError):
        await other.publish(PublishLogsMessage(subscription_id=id, messages=[line("n2", "t1", b"forged\n")]))
    with pytest.raises(PermissionDeniedError):
        await asked.publish(PublishLogsMessage(subscription_id=id, messages=[line("n2", "t1", b"forged\n")]))
    with pytest.raises(InvalidArgumentError):
        await asked.publish(PublishLogsMessage())
    with pytest.raises(InvalidArgumentError):
        await asked.publish(PublishLogsMessage(subscription_id=id), PublishLogsMessage(subscription_id="other"))
    assert reader.lines == []


async def test_a_selector_that_selects_nothing_is_refused(bench: Bench) -> None:
    reader = Reader(bench, SubscribeLogsRequest())
    await reader.task

    assert isinstance(reader.failure, InvalidArgumentError)


async def test_the_end_of_the_term_sends_readers_and_nodes_to_the_next_leader(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    worker = await bench.worker("n1")
    reader = await bench.read(follow=True)

    bench.leading.cancel()
    await let_the_loop_run()

    assert isinstance(reader.failure, UnavailableError) and isinstance(worker.failure, UnavailableError)
    late = await bench.read()
    assert isinstance(late.failure, NotLeaderError)


async def test_there_is_a_bound_to_open_streams(bench: Bench) -> None:
    readers = [await bench.read(follow=True, service_ids=["none"]) for _ in range(MAX_SUBSCRIPTIONS)]

    one_more = await bench.read(follow=True)

    assert not any(reader.task.done() for reader in readers)
    assert "log streams are open" in str(one_more.failure)


async def test_nodes_that_come_and_go_under_a_follower_leave_nothing_behind(bench: Bench) -> None:
    await bench.node("n1")
    await bench.task("t1", "n1")
    reader = await bench.read(follow=True)

    async def flap(at: int) -> int:
        worker = await bench.worker("n1")
        message = PublishLogsMessage(subscription_id=worker.told[0].id, messages=[line("n1", "t1", b"%d\n" % at, at)])
        publishing = worker.publish(message, None)
        await let_the_loop_run()
        worker.task.cancel()
        publishing.cancel()
        await let_the_loop_run()
        return len(asyncio.all_tasks())

    counts = [await flap(number) for number in range(1, 41)]

    assert reader.lines == [b"%d\n" % number for number in range(1, 41)]
    assert counts[-1] == counts[0]
