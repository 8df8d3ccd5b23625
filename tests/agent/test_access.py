"""Commands beside tasks, over the session of an agent with a manager on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from swarmcore.agent.agent import Agent
from swarmcore.api.exec_pb2 import (
    ExecInput,
    ExecOutput,
    ExecStart,
    ListenRequestsRequest,
    NodeExecOutput,
    NodeStats,
    NodeStatsResponse,
    TaskRequest,
)
from swarmcore.api.exec_pb2_grpc import TaskAccessBrokerServicer
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import NodeDescription, TaskState
from swarmcore.plugin.executor import Dependencies, ExecOptions, ExecSession
from swarmcore.testing.executors import FakeController, FakeExecutor
from swarmcore.testing.managers import FakeManager


class Echo(ExecSession):
    """Writes what it reads, until it reads no more."""

    def __init__(self) -> None:
        self.is_closed = False
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while piece := await self._pieces.get():
            yield 1, piece

    async def write(self, data: bytes) -> None:
        self._pieces.put_nowait(data)

    async def close_input(self) -> None:
        self._pieces.put_nowait(b"")

    async def resize(self, rows: int, columns: int) -> None: ...

    async def signal(self, name: str) -> None: ...

    async def wait(self) -> int:
        return 7

    async def aclose(self) -> None:
        self.is_closed = True
        self._pieces.put_nowait(b"")


class CommandController(FakeController):
    commands: ClassVar[list[Echo]] = []

    async def exec(self, options: ExecOptions) -> ExecSession:
        self.commands.append(Echo())
        return self.commands[-1]


class CommandExecutor(FakeExecutor):
    async def controller(self, task: Task, dependencies: Dependencies) -> FakeController:
        return CommandController(self, task, dependencies)


class FakeBroker(TaskAccessBrokerServicer):
    """Asks for what a test says, and remembers what commands wrote."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[TaskRequest] = asyncio.Queue()
        self.listening = 0
        self.input: asyncio.Queue[ExecInput | None] = asyncio.Queue()
        self.output: list[ExecOutput] = []
        self.serving = 0

    async def ListenRequests(self, request: ListenRequestsRequest, context: Any) -> AsyncIterator[TaskRequest]:
        self.listening += 1
        while True:
            yield await self.requests.get()

    async def ServeExec(self, requests: AsyncIterator[NodeExecOutput], context: Any) -> AsyncIterator[ExecInput]:
        self.serving += 1
        reading = asyncio.create_task(self._read(requests))
        try:
            while (message := await self.input.get()) is not None:
                yield message
        finally:
            self.serving -= 1
            reading.cancel()

    async def ServeStats(self, requests: AsyncIterator[NodeStats], context: Any) -> NodeStatsResponse:
        raise NotImplementedError

    async def _read(self, requests: AsyncIterator[NodeExecOutput]) -> None:
        async for message in requests:
            if message.HasField("output"):
                self.output.append(message.output)


class Bench:
    def __init__(self, manager: FakeManager, broker: FakeBroker, executor: CommandExecutor, agent: Agent) -> None:
        self.manager, self.broker, self.executor, self.agent = manager, broker, executor, agent

    async def run(self) -> None:
        """Start a command."""
        self.broker.requests.put_nowait(TaskRequest(id="r", exec=ExecStart(task_id="t", command=["cat"], stdin=True)))
        await self.manager.until(lambda: self.broker.output == [ExecOutput(started=True)])

    async def says(self, data: bytes) -> None:
        """What goes in comes out."""
        self.broker.input.put_nowait(ExecInput(stdin=data))
        await self.manager.until(lambda: self.broker.output[-1].stdout == data)

    async def register_anew(self) -> None:
        before = self.broker.listening
        self.executor.description = NodeDescription()
        self.executor.description.resources.nano_cpus = before
        self.agent.refresh()
        await self.manager.until(lambda: self.broker.listening > before)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    manager, broker, executor = FakeManager(), FakeBroker(), CommandExecutor()
    CommandController.commands = []
    await manager.start(access=broker)
    agent = Agent(
        node_id="node",
        executors={"container": executor},
        state_dir=tmp_path,
        connect=manager.connections(),
        hostname="host",
    )
    running = asyncio.ensure_future(agent.run())
    task = Task(id="t", service_id="s", desired_state=TaskState.RUNNING)
    task.status.state = TaskState.ASSIGNED
    task.spec.container.image = "image"
    await manager.until(lambda: len(manager.assignments) == 1)
    manager.assign(task, complete=True)
    await manager.until(lambda: "t" in manager.statuses and manager.statuses["t"].state == TaskState.RUNNING)
    yield Bench(manager, broker, executor, agent)
    running.cancel()
    await asyncio.wait([running])
    assert all(command.is_closed for command in CommandController.commands)
    await manager.stop()


async def test_a_command_goes_on_while_its_agent_registers_anew(bench: Bench) -> None:
    await bench.run()
    await bench.says(b"before")

    for _ in range(3):
        await bench.register_anew()
        await bench.says(b"after")
    bench.broker.input.put_nowait(ExecInput(stdin_closed=True))
    await bench.manager.until(lambda: bench.broker.output[-1].HasField("end"))

    assert bench.broker.output[-1].end.code == 7
    bench.broker.input.put_nowait(None)
    await bench.manager.until(lambda: not bench.agent._finishing)


async def test_a_command_that_went_on_ends_with_its_call(bench: Bench) -> None:
    await bench.run()
    await bench.register_anew()

    bench.broker.input.put_nowait(None)
    await bench.manager.until(lambda: CommandController.commands[0].is_closed)
    await bench.manager.until(lambda: not bench.agent._finishing)

    assert bench.broker.serving == 0


async def test_a_command_ends_with_the_manager(bench: Bench) -> None:
    await bench.run()

    await bench.manager.stop()
    await bench.manager.until(lambda: CommandController.commands[0].is_closed)


async def test_a_command_that_went_on_ends_with_its_agent(bench: Bench) -> None:
    await bench.run()
    await bench.register_anew()
    # The end of the bench is the rest of this test.
