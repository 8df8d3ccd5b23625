"""The broker of commands on a real store, with operators and nodes that call it directly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from swarmcore.api.caller import Caller
from swarmcore.api.exec_pb2 import (
    ExecEnd,
    ExecInput,
    ExecOutput,
    ExecStart,
    ListenRequestsRequest,
    NodeExecOutput,
    NodeStats,
    StatsRequest,
    TaskRequest,
    TaskStats,
)
from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeRole, NodeStatus, TaskState
from swarmcore.errors import FailedPreconditionError, NotFoundError, PermissionDeniedError, SwarmError, UnavailableError
from swarmcore.execbroker import broker
from swarmcore.execbroker.broker import ExecBroker
from swarmcore.execbroker.checks import EXECUTOR_PLUGIN
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import let_the_loop_run
from swarmcore.testing.store import running_store

OPERATOR = Caller(node_id="m1", role=NodeRole.MANAGER, is_local=True)


class Records:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []
        self.is_full = False

    def record(self, event: str, **facts: object) -> None:
        if self.is_full:
            raise FailedPreconditionError("the disk is full")
        self.records.append({"event": event, **facts})

    @property
    def events(self) -> list[object]:
        return [record["event"] for record in self.records]


class Operator:
    """Someone who runs a command."""

    def __init__(self, bench: Bench, start: ExecStart, caller: Caller = OPERATOR) -> None:
        self.output: list[ExecOutput] = []
        self.failure: SwarmError | None = None
        self.sent: asyncio.Queue[ExecInput | None] = asyncio.Queue()
        self.sent.put_nowait(ExecInput(start=start))
        self._bench = bench
        self._caller = caller
        self.task = bench.own(self._run())

    async def _run(self) -> None:
        context: Any = None
        self._bench.caller = self._caller
        answers: Any = self._bench.broker.Exec(self._requests(), context)
        try:
            async with contextlib.aclosing(answers) as outputs:
                async for output in outputs:
                    self.output.append(output)
        except SwarmError as error:
            self.failure = error

    async def _requests(self) -> AsyncIterator[ExecInput]:
        while (message := await self.sent.get()) is not None:
            yield message


class Worker:
    """A node that listens."""

    def __init__(self, bench: Bench, id: str) -> None:
        self.id = id
        self.told: list[TaskRequest] = []
        self.input: list[ExecInput] = []
        self._bench = bench
        self.task = bench.own(self._listen())

    async def _listen(self) -> None:
        context: Any = None
        self._bench.caller = Caller(node_id=self.id, role=NodeRole.WORKER)
        answers: Any = self._bench.broker.ListenRequests(ListenRequestsRequest(), context)
        async with contextlib.aclosing(answers) as requests:
            async for request in requests:
                self.told.append(request)

    def serve(
        self,
        *outputs: ExecOutput,
        request_id: str | None = None,
        stays: bool = False,
        pause: asyncio.Event | None = None,
    ) -> asyncio.Task[None]:
        """Serve the newest request with these, with a pause after the first; with `stays` the command then runs on."""
        id = self.told[-1].id if request_id is None else request_id

        async def messages() -> AsyncIterator[NodeExecOutput]:
            yield NodeExecOutput(request_id=id)
            for output in outputs:
                yield NodeExecOutput(output=output)
                if pause is not None:
                    await pause.wait()
            if stays:
                await asyncio.Event().wait()

        async def call() -> None:
            context: Any = None
            self._bench.caller = Caller(node_id=self.id, role=NodeRole.WORKER)
            answers: Any = self._bench.broker.ServeExec(messages(), context)
            async with contextlib.aclosing(answers) as received:
                async for each in received:
                    self.input.append(each)

        return self._bench.own(call())


class Bench:
    """The broker, leading, with task t1 on node n1, which listens, and t2 on a stock engine."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.audit = Records()
        self.caller = OPERATOR
        self.broker = ExecBroker(self.audit, caller=lambda: self.caller)
        self._tasks: list[asyncio.Task[Any]] = []
        self.leading = self.own(self.broker.run(store.writer(1)))
        self.worker = Worker(self, "n1")

    def own(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def run(self, task_id: str = "t1", *command: str, caller: Caller = OPERATOR) -> Operator:
        operator = Operator(self, ExecStart(task_id=task_id, command=command or ("ls",), said_user="me"), caller)
        await let_the_loop_run()
        return operator

    async def aclose(self) -> None:
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _create(tx: Transaction, node: Node, task: Task) -> None:
    tx.node.create(node)
    tx.task.create(task)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running_store() as store:
        for number in "12":
            node = Node(id=f"n{number}")
            node.status.state = NodeStatus.READY
            node.description.hostname = f"host{number}"
            if number == "1":
                node.description.engine.plugins.add(type=EXECUTOR_PLUGIN, name="process")
            task = Task(id=f"t{number}", node_id=node.id, service_id="s")
            task.status.state = TaskState.RUNNING
            await store.update(partial(_create, node=node, task=task))
        made = Bench(store)
        await let_the_loop_run()
        yield made
        await made.aclose()


END = ExecOutput(end=ExecEnd(code=3))


async def test_a_command_goes_to_its_node_and_its_output_and_exit_code_come_back(bench: Bench) -> None:
    operator = await bench.run("t1", "echo", "hi")

    serving = bench.worker.serve(ExecOutput(started=True), ExecOutput(stdout=b"hi\n"), END)
    await operator.task
    await serving

    assert list(bench.worker.told[0].exec.command) == ["echo", "hi"]
    assert [each.WhichOneof("what") for each in operator.output] == ["started", "stdout", "end"]
    assert operator.output[-1].end.code == 3
    assert bench.broker.jobs == 0


async def test_who_ran_what_where_and_how_it_ended_is_recorded_first_and_last(bench: Bench) -> None:
    operator = await bench.run("t1", "mysql", "--password=hunter2")
    before = list(bench.audit.events)
    bench.worker.serve(END)
    await operator.task

    assert before == ["exec.start"] and bench.audit.events == ["exec.start", "exec.end"]
    start, end = bench.audit.records
    assert (start["manager"], start["says_user"], start["task"], start["node"]) == ("m1", "me", "t1", "n1")
    assert start["command"] == ["mysql", "--password=…"]
    assert end["exit_code"] == 3 and end["id"] == start["id"]


async def test_what_can_not_be_recorded_is_not_run(bench: Bench) -> None:
    bench.audit.is_full = True

    operator = await bench.run()

    assert isinstance(operator.failure, FailedPreconditionError)
    assert bench.worker.told == []


async def test_input_reaches_the_command_and_its_end_does_not_end_it(bench: Bench) -> None:
    operator = await bench.run()
    bench.worker.serve(ExecOutput(started=True), stays=True)
    operator.sent.put_nowait(ExecInput(stdin=b"abc"))
    operator.sent.put_nowait(None)
    await let_the_loop_run()

    assert [each.WhichOneof("what") for each in bench.worker.input] == ["stdin", "stdin_closed"]
    assert not operator.task.done()


async def test_an_operator_who_leaves_ends_the_command(bench: Bench) -> None:
    operator = await bench.run()
    serving = bench.worker.serve(stays=True)
    await let_the_loop_run()

    operator.task.cancel()
    await let_the_loop_run()

    assert serving.done()
    assert bench.worker.told[-1].close
    assert bench.audit.records[-1]["error"] == "the operator left"
    assert bench.broker.jobs == 0


async def test_a_node_that_goes_away_ends_the_command_with_its_name(bench: Bench) -> None:
    operator = await bench.run()
    serving = bench.worker.serve(stays=True)
    await let_the_loop_run()

    serving.cancel()
    await operator.task

    assert isinstance(operator.failure, UnavailableError)
    assert str(operator.failure) == "node host1 was lost while the command ran: how it ended is not known"


async def test_a_node_that_goes_away_before_it_takes_a_command_up_is_named(bench: Bench) -> None:
    operator = await bench.run()

    bench.worker.task.cancel()
    await operator.task

    assert isinstance(operator.failure, UnavailableError) and "n1 disconnected" in str(operator.failure)


async def test_a_command_goes_on_when_its_node_registers_anew(bench: Bench) -> None:
    operator = await bench.run()
    go_on = asyncio.Event()
    bench.worker.serve(ExecOutput(stdout=b"begun"), END, pause=go_on)
    await let_the_loop_run()

    bench.worker.task.cancel()
    Worker(bench, "n1")
    await let_the_loop_run()
    operator.sent.put_nowait(ExecInput(stdin=b"more"))
    await let_the_loop_run()
    assert bench.worker.input == [ExecInput(stdin=b"more")]
    go_on.set()
    await operator.task

    assert operator.output == [ExecOutput(stdout=b"begun"), END] and operator.failure is None


async def test_a_command_that_goes_on_so_ends_when_its_operator_leaves(bench: Bench) -> None:
    operator = await bench.run()
    serving = bench.worker.serve(stays=True)
    await let_the_loop_run()
    bench.worker.task.cancel()
    Worker(bench, "n1")
    await let_the_loop_run()

    operator.task.cancel()
    await let_the_loop_run()

    assert serving.done() and bench.broker.jobs == 0


async def test_a_stock_engine_is_told_apart(bench: Bench) -> None:
    operator = await bench.run("t2")

    assert str(operator.failure) == "not supported by this node: host2 is a stock Docker Engine"
    assert bench.audit.events == ["exec.refused"]


@pytest.mark.parametrize(
    "caller",
    [
        Caller(node_id="n1", role=NodeRole.WORKER),
        Caller(node_id="m2", role=NodeRole.MANAGER),
        Caller(node_id="", role=None),
    ],
)
async def test_nobody_but_an_operator_at_a_socket_runs_anything(bench: Bench, caller: Caller) -> None:
    operator = await bench.run(caller=caller)

    assert isinstance(operator.failure, PermissionDeniedError)
    assert bench.worker.told == [] and bench.audit.records == []


async def test_an_operator_of_another_manager_may(bench: Bench) -> None:
    await bench.run(caller=Caller(node_id="m2", role=NodeRole.MANAGER, is_forwarded=True))

    assert bench.audit.records[0]["manager"] == "m2"


async def test_a_node_can_not_take_what_another_was_asked(bench: Bench) -> None:
    operator = await bench.run()
    other = Worker(bench, "n2")
    await let_the_loop_run()

    with pytest.raises(NotFoundError):
        await other.serve(END, request_id=bench.worker.told[0].id)
    bench.worker.serve(END)
    await operator.task
    with pytest.raises(NotFoundError):
        await bench.worker.serve(END, request_id=bench.worker.told[0].id)

    assert operator.output == [END]


@pytest.mark.parametrize(
    ("start", "complaint"),
    [
        (ExecStart(task_id="t1"), "exec.command is empty"),
        (ExecStart(task_id="t1", command=["ls"], env=["A"]), "exec.env 'A': write it as NAME=VALUE"),
        (ExecStart(task_id="t1", command=["ls", "a\0b"]), "a zero byte"),
        (ExecStart(task_id="t1", command=["x"] * 5000), "at most 4096 words"),
        (ExecStart(task_id="t1", command=["x" * 200_000]), "too long"),
        (ExecStart(task_id="nosuch", command=["ls"]), "task nosuch not found"),
    ],
)
async def test_what_can_not_be_run_is_refused_by_its_name(bench: Bench, start: ExecStart, complaint: str) -> None:
    operator = Operator(bench, start)
    await operator.task

    assert complaint in str(operator.failure)


async def test_a_task_that_does_not_run_is_refused(bench: Bench) -> None:
    def end(tx: Any) -> None:
        task = Task()
        task.CopyFrom(tx.task.get("t1"))
        task.status.state = TaskState.COMPLETE
        tx.task.update(task)

    await bench.store.update(end)
    operator = await bench.run()

    assert "task t1 is COMPLETE" in str(operator.failure)


async def test_the_end_of_the_term_ends_commands(bench: Bench) -> None:
    operator = await bench.run()
    serving = bench.worker.serve(stays=True)
    await let_the_loop_run()

    bench.leading.cancel()
    await let_the_loop_run()

    assert isinstance(operator.failure, UnavailableError)
    assert str(operator.failure) == "the leading manager has changed, which ended the command"
    assert serving.done()


async def test_stats_come_from_every_node_that_can_tell(bench: Bench) -> None:
    context: Any = None
    answers: list[Any] = []

    async def ask() -> None:
        bench.caller = OPERATOR
        async for answer in bench.broker.Stats(StatsRequest(once=True), context):
            answers.append(answer)

    asking = bench.own(ask())
    await let_the_loop_run()
    request = bench.worker.told[0]

    async def samples() -> AsyncIterator[NodeStats]:
        yield NodeStats(request_id=request.id, stats=[TaskStats(task_id="t1", node_id="n1", pids=2)])

    bench.caller = Caller(node_id="n1", role=NodeRole.WORKER)
    await bench.broker.ServeStats(samples(), context)
    await asking

    assert list(request.stats.task_ids) == ["t1"]
    assert [list(answer.warnings) for answer in answers if answer.warnings] == [
        ["not supported by this node: host2 is a stock Docker Engine"]
    ]
    assert [sample.pids for answer in answers for sample in answer.stats] == [2]


async def test_stats_take_in_tasks_that_come_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LOOK_SECONDS", 0.01)
    context: Any = None

    async def ask() -> None:
        bench.caller = OPERATOR
        async for _ in bench.broker.Stats(StatsRequest(), context):
            pass

    asking = bench.own(ask())
    await let_the_loop_run()
    assert list(bench.worker.told[0].stats.task_ids) == ["t1"]

    late = Task(id="t3", node_id="n1")
    late.status.state = TaskState.RUNNING
    await bench.store.update(lambda tx: tx.task.create(late))
    async with asyncio.timeout(5):
        while sorted(bench.worker.told[-1].stats.task_ids) != ["t1", "t3"]:  # noqa: ASYNC110 - told over a stream
            await asyncio.sleep(0.01)

    assert not asking.done()
    asking.cancel()


async def test_stats_of_named_tasks_go_on_when_their_node_registers_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "LOOK_SECONDS", 0.01)
    context: Any = None

    async def ask() -> None:
        bench.caller = OPERATOR
        async for _ in bench.broker.Stats(StatsRequest(task_ids=["t1"]), context):
            pass

    asking = bench.own(ask())
    await let_the_loop_run()
    bench.worker.task.cancel()
    await let_the_loop_run()
    again = Worker(bench, "n1")
    async with asyncio.timeout(5):
        while not again.told:  # noqa: ASYNC110 - told over a stream
            await asyncio.sleep(0.01)

    assert list(again.told[0].stats.task_ids) == ["t1"] and not asking.done()
    asking.cancel()
