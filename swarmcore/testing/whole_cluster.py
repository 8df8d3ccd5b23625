"""A whole cluster on one loop, without sockets, engines or threads: the real store, control service, leader
components, dispatcher and agents, on a clock that a test moves.

What is not real: agreement (each write is applied at once), the transport (calls are made directly, through the bytes
of their messages), the engines (`FakeExecutor`), the agents' file, and the scheduler's thread (it plans in place).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import grpc
import grpc.aio

from swarmcore.agent.agent import Agent
from swarmcore.agent.local_state import TaskRecord
from swarmcore.allocator.allocator import Allocator
from swarmcore.api.caller import Caller
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import ClusterSpec, NodeSpec
from swarmcore.api.types_pb2 import NodeDescription, NodeRole, Peer, RootCA, TaskState, WeightedPeer
from swarmcore.controlapi.control import ControlService
from swarmcore.dispatcher.dispatcher import Dispatcher
from swarmcore.errors import SwarmError, UnavailableError
from swarmcore.manager.leading import LeaderComponent
from swarmcore.orchestrator import components
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.scheduler.planner import Input, Output, Planner
from swarmcore.scheduler.scheduler import Scheduler
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.executors import FakeExecutor
from swarmcore.testing.store import ImmediateProposer

CUT = UnavailableError("the network is cut")


class PlanInPlace:
    """Stands in for the scheduler's thread."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    async def ask(self, given: Input) -> Output:
        await asyncio.sleep(0)
        return self._planner.round(given)

    async def aclose(self) -> None:
        return


class MemoryFiles:
    """Stands in for the agents' files: what was saved is there when an agent starts again."""

    def __init__(self) -> None:
        self._records: dict[Path, dict[str, TaskRecord]] = {}

    def __call__(self, folder: Path) -> _MemoryFile:
        return _MemoryFile(self._records.setdefault(folder, {}))


class _MemoryFile:
    def __init__(self, records: dict[str, TaskRecord]) -> None:
        self._records = records

    async def open(self) -> list[TaskRecord]:
        return list(self._records.values())

    def save(self, record: TaskRecord) -> None:
        self._records[record.task.id] = record

    def delete(self, task_id: str) -> None:
        self._records.pop(task_id, None)

    async def flush(self) -> None:
        return

    async def aclose(self) -> None:
        return


class _NoClusterOps:
    """The CA's part of the control service: tokens and keys are nobody's affair here."""

    def rotate_join_token(self, cluster: Cluster, role: NodeRole.ValueType) -> str:
        raise NotImplementedError

    def new_unlock_key(self) -> bytes:
        raise NotImplementedError

    async def plan_root_ca(self, cluster: Cluster, spec: ClusterSpec) -> RootCA:
        return cluster.root_ca

    def record_removed_node(self, tx: Transaction, node: Node) -> None:
        return


class _Call:
    """The caller's end of a stream."""

    def __init__(self, machine: Machine, messages: AsyncIterator[Any]) -> None:
        self._machine = machine
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._failure: grpc.aio.AioRpcError | None = None
        self._task = asyncio.create_task(self._pump(messages))
        machine.calls.add(self)

    async def _pump(self, messages: AsyncIterator[Any]) -> None:
        try:
            async for message in messages:
                self._queue.put_nowait(type(message).FromString(message.SerializeToString()))
            self._queue.put_nowait(grpc.aio.EOF)
        except SwarmError as error:
            self._queue.put_nowait(_rpc_error(error))

    async def read(self) -> Any:
        got = await self._queue.get()
        if isinstance(got, grpc.aio.AioRpcError):
            self._queue.put_nowait(got)
            raise got
        return got

    def fail(self) -> None:
        """The network breaks under the call."""
        self.cancel()
        self._queue.put_nowait(_rpc_error(CUT))

    def cancel(self) -> None:
        self._machine.calls.discard(self)
        self._task.cancel()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message


def _rpc_error(error: SwarmError) -> grpc.aio.AioRpcError:
    code = next(code for code in grpc.StatusCode if code.value[0] == error.status)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=str(error))


class _Channel:
    """As much of a channel as the agent's stubs use."""

    def __init__(self, machine: Machine, dispatcher: Dispatcher) -> None:
        self._machine = machine
        self._dispatcher = dispatcher
        self._caller: Any = Caller(node_id=machine.id, role=NodeRole.WORKER, remote_addr="10.0.0.9")

    def unary_unary(self, path: str, *_: object, **__: object) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._dispatcher, path.rpartition("/")[2])

        async def call(request: Any, timeout: float | None = None, metadata: object = None) -> Any:
            await asyncio.sleep(0)
            if self._machine.is_cut:
                raise _rpc_error(CUT)
            try:
                return await method(type(request).FromString(request.SerializeToString()), self._caller)
            except SwarmError as error:
                raise _rpc_error(error) from None

        return call

    def unary_stream(self, path: str, *_: object, **__: object) -> Callable[[Any], _Call]:
        method = getattr(self._dispatcher, path.rpartition("/")[2], None)

        def call(request: Any) -> _Call:
            return _Call(self._machine, _silence() if method is None else method(request, self._caller))

        return call

    def stream_unary(self, path: str, *_: object, **__: object) -> None:
        """Nobody asks for logs."""

    def stream_stream(self, path: str, *_: object, **__: object) -> None:
        """Nobody runs a command beside a task."""


async def _silence() -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield None


class Machine:
    """A node: an agent and an engine, which outlives it."""

    peer = "manager"

    def __init__(self, cluster: WholeCluster, id: str, description: NodeDescription) -> None:
        self.id = id
        self.is_cut = False
        self.calls: set[_Call] = set()
        self.executor = FakeExecutor(description=description)
        self._cluster = cluster
        self._running: asyncio.Task[None] | None = None

    # Satisfies `Connections` and `Connection`

    async def open(self) -> Machine:
        if self.is_cut:
            raise CUT
        return self

    @property
    def channel(self) -> Any:
        return _Channel(self, self._cluster.dispatcher)

    def succeeded(self) -> None:
        return

    def failed(self) -> None:
        return

    def is_stock(self) -> bool:
        return False

    async def aclose(self) -> None:
        return

    # What happens to it

    def start(self) -> None:
        agent = Agent(
            node_id=self.id,
            executors={"container": self.executor},
            state_dir=Path(self.id),
            connect=self,
            hostname=self.id,
            clock=self._cluster.clock,
            rng=self._cluster.random,
        )
        self._running = asyncio.create_task(agent.run(), name=f"agent {self.id}")

    async def stop(self) -> None:
        """The agent ends; what runs on the engine goes on."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def cut(self) -> None:
        self.is_cut = True
        for call in list(self.calls):
            call.fail()

    def mend(self) -> None:
        self.is_cut = False

    @property
    def running(self) -> set[str]:
        return self.executor.engine.running


class WholeCluster:
    """One manager and its machines."""

    def __init__(self, store: Store, proposer: ImmediateProposer, clock: SimulatedClock, plugins: PluginSet) -> None:
        self.store = store
        self.clock = clock
        self.random = Random(0)
        self.machines: dict[str, Machine] = {}
        self._proposer = proposer
        peer = WeightedPeer(peer=Peer(node_id="manager", addr="10.0.0.1:4242"), weight=10)
        caller_of: Any = lambda context: context  # noqa: E731 - the context is the caller
        self.dispatcher = Dispatcher(
            caller_of, lambda: [peer], "manager", clock=clock, rng=self.random, metadata_of=lambda _: ()
        )
        self.control = ControlService(store, members=lambda: (), cluster_ops=_NoClusterOps(), clock=clock)
        self._components: list[LeaderComponent] = [
            *components(plugins=lambda: plugins, clock=clock),
            Allocator(clock=clock),
            Scheduler(plugins=lambda: plugins, clock=clock),
            self.dispatcher,
        ]
        self._leading: list[asyncio.Task[None]] = []

    async def lead(self) -> None:
        """Another term begins. What a component raised in the last one is raised here."""
        await self.resign()
        self._proposer.term += 1
        writer = self.store.writer(self._proposer.term)
        self._leading = [asyncio.create_task(each.run(writer), name=each.name) for each in self._components]

    async def resign(self) -> None:
        leading, self._leading = self._leading, []
        ended = [task for task in leading if task.done()]
        for task in leading:
            task.cancel()
        outcomes = await asyncio.gather(*leading, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        assert not ended, f"{ended} ended by itself"

    async def add_machine(self, id: str, description: NodeDescription) -> Machine:
        """A node joins."""
        node = Node(id=id, role=NodeRole.WORKER)
        node.spec.membership = NodeSpec.ACCEPTED
        node.spec.annotations.name = id
        await self.store.update(lambda tx: tx.node.create(node))
        machine = self.machines[id] = Machine(self, id, description)
        machine.start()
        return machine

    async def settle(self) -> None:
        """Let everything happen that happens without time passing."""
        quiet = 0
        while quiet < 2:
            before = self.store.version
            await let_the_loop_run(60)
            quiet = quiet + 1 if self.store.version == before else 0

    def live_on(self, node_id: str) -> set[str]:
        """Tasks that the store believes to be running there."""
        return {task.id for task in self.store.view.task.by("node", node_id) if task.status.state == TaskState.RUNNING}


@contextmanager
def _without_threads_and_files() -> Iterator[None]:
    with (
        mock.patch("swarmcore.scheduler.scheduler.PlannerThread", PlanInPlace),
        mock.patch("swarmcore.agent.worker.LocalState", MemoryFiles()),
    ):
        yield


@asynccontextmanager
async def whole_cluster(plugins: PluginSet) -> AsyncIterator[WholeCluster]:
    """A manager that leads, with a cluster object and no machine yet."""
    clock = SimulatedClock(settle=lambda: let_the_loop_run(60))
    store = Store(clock=clock.now, checked=True)
    proposer = ImmediateProposer(store)
    store.connect(proposer)
    with _without_threads_and_files():
        writer = asyncio.create_task(store.run())
        cluster = WholeCluster(store, proposer, clock, plugins)
        made = Cluster(id="cluster")
        made.spec.annotations.name = "default"
        made.spec.orchestration.task_history_retention_limit = 5
        await store.update(lambda tx: tx.cluster.create(made))
        await cluster.lead()
        try:
            yield cluster
            await cluster.resign()
        finally:
            for machine in cluster.machines.values():
                await machine.stop()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
    store.check()
