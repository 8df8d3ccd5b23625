"""A dispatcher that leads, on a store of its own, and agents that speak to it without sockets. Time is simulated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Generic, TypeVar

import pytest

from swarmcore.api.dispatcher_pb2 import (
    AssignmentsMessage,
    AssignmentsRequest,
    HeartbeatRequest,
    SessionMessage,
    SessionRequest,
    UpdateTaskStatusRequest,
    UpdateTaskStatusResponse,
)
from swarmcore.api.objects_pb2 import Cluster, Node, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeDescription, NodeStatus, Peer, TaskState, TaskStatus, WeightedPeer
from swarmcore.dispatcher.dispatcher import Dispatcher
from swarmcore.store.store import LeaderStore, Store
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.store import running_store

M = TypeVar("M")
MANAGER = "manager-1"


@dataclass(frozen=True, slots=True)
class FakeCaller:
    node_id: str
    remote_addr: str = "10.0.0.7"
    time: str = ""
    """What it sends of its clock."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("swarmcore-time", self.time),) if self.time else ()


class Listener(Generic[M]):
    """One stream, read by a task of its own as a server would."""

    def __init__(self, stream: AsyncIterator[M]) -> None:
        self.messages: list[M] = []
        self.error: Exception | None = None
        self._stream = stream
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self._stream:
                self.messages.append(message)
        except Exception as error:  # noqa: BLE001 - what the interceptor would turn into a status
            self.error = error

    @property
    def is_open(self) -> bool:
        return not self._task.done()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@dataclass(kw_only=True)
class Agent:
    """One node's side."""

    world: World
    node_id: str
    session: Listener[SessionMessage]

    @property
    def session_id(self) -> str:
        return self.session.messages[0].session_id

    @property
    def caller(self) -> Any:
        return FakeCaller(self.node_id)

    async def assignments(self) -> Listener[AssignmentsMessage]:
        request = AssignmentsRequest(session_id=self.session_id)
        listener = self.world.listen(self.world.dispatcher.Assignments(request, self.caller))
        await let_the_loop_run()
        return listener

    async def beat(self, session_id: str | None = None, time: str = "") -> float:
        request = HeartbeatRequest(session_id=self.session_id if session_id is None else session_id)
        caller: Any = FakeCaller(self.node_id, time=time)
        period = (await self.world.dispatcher.Heartbeat(request, caller)).period
        return float(period.seconds + period.nanos / 1e9)

    async def report(self, *updates: tuple[str, TaskStatus]) -> UpdateTaskStatusResponse:
        request = UpdateTaskStatusRequest(session_id=self.session_id)
        for task_id, status in updates:
            request.updates.add(task_id=task_id, status=status)
        answer = await self.world.dispatcher.UpdateTaskStatus(request, self.caller)
        await let_the_loop_run()
        return answer


@dataclass(kw_only=True)
class World:
    """The dispatcher and what is around it."""

    store: Store
    clock: SimulatedClock
    dispatcher: Dispatcher
    managers: list[WeightedPeer]
    listeners: list[Listener[Any]] = field(default_factory=list)
    leading: asyncio.Task[None] | None = None
    term: int = 1

    def listen(self, stream: AsyncIterator[M]) -> Listener[M]:
        listener = Listener(stream)
        self.listeners.append(listener)
        return listener

    async def lead(self) -> None:
        """Become the leader (again)."""
        self.leading = asyncio.create_task(self.dispatcher.run(LeaderStore(self.store, self.term)))
        await let_the_loop_run()

    async def stop_leading(self) -> None:
        if self.leading is not None:
            self.leading.cancel()
            await asyncio.gather(self.leading, return_exceptions=True)
            self.leading = None

    async def add_nodes(self, *ids: str, state: NodeStatus.State.ValueType = NodeStatus.UNKNOWN) -> None:
        for id in ids:
            node = Node(id=id)
            node.status.state = state
            node.spec.membership = NodeSpec.ACCEPTED
            await self.store.update(lambda tx, node=node: tx.node.create(node))  # type: ignore[misc]

    async def put_tasks(self, *tasks: Task) -> None:
        """Create or replace, all in one transaction, as the scheduler does."""

        def write(tx: Any) -> None:
            for task in tasks:
                old = tx.task.get(task.id)
                new = Task()
                new.CopyFrom(task)
                if old is None:
                    tx.task.create(new)
                else:
                    new.meta.CopyFrom(old.meta)
                    tx.task.update(new)

        await self.store.update(write)
        await let_the_loop_run()

    async def delete_tasks(self, *ids: str) -> None:
        def write(tx: Any) -> None:
            for id in ids:
                tx.task.delete(id)

        await self.store.update(write)
        await let_the_loop_run()

    async def agent(self, node_id: str, session_id: str = "", description: NodeDescription | None = None) -> Agent:
        """An agent whose Session call was made."""
        request = SessionRequest(session_id=session_id, description=description)
        caller: Any = FakeCaller(node_id)
        session = self.listen(self.dispatcher.Session(request, caller))
        await let_the_loop_run()
        return Agent(world=self, node_id=node_id, session=session)

    def node(self, id: str) -> Node:
        node = self.store.view.node.get(id)
        assert node is not None
        return node

    def task(self, id: str) -> Task:
        task = self.store.view.task.get(id)
        assert task is not None
        return task


def make_task(
    id: str,
    node_id: str,
    state: TaskState.ValueType = TaskState.ASSIGNED,
    *,
    secrets: Sequence[str] = (),
    configs: Sequence[str] = (),
) -> Task:
    """A container task on a node."""
    task = Task(id=id, node_id=node_id, service_id="service", desired_state=TaskState.RUNNING)
    task.status.state = state
    task.spec.container.image = "redis:3.0.6"
    for secret_id in secrets:
        task.spec.container.secrets.add(secret_id=secret_id, secret_name=secret_id)
    for config_id in configs:
        task.spec.container.configs.add(config_id=config_id, config_name=config_id)
    return task


def status(state: TaskState.ValueType, message: str = "") -> TaskStatus:
    return TaskStatus(state=state, message=message)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = SimulatedClock()
    managers = [WeightedPeer(peer=Peer(node_id=MANAGER, addr="10.0.0.1:4242"), weight=10)]
    numbers = count(1)

    def caller_of(context: Any) -> FakeCaller:
        assert isinstance(context, FakeCaller)
        return context

    async with running_store(clock.now) as store:
        dispatcher = Dispatcher(
            caller_of,
            lambda: managers,
            MANAGER,
            clock,
            rng=Random(7),
            new_id=lambda: f"session-{next(numbers)}",
        )
        made = World(store=store, clock=clock, dispatcher=dispatcher, managers=managers)
        cluster = Cluster(id="cluster")
        cluster.spec.annotations.name = "default"
        cluster.spec.dispatcher.heartbeat_period.seconds = 5
        cluster.root_ca.ca_cert = b"the root"
        await store.update(lambda tx: tx.cluster.create(cluster))
        await made.lead()
        yield made
        for listener in made.listeners:
            await listener.close()
        await made.stop_leading()


MakeTask = Callable[..., Task]


@pytest.fixture
def task_of() -> MakeTask:
    """`make_task`, for test modules (which can't import this one)."""
    return make_task


@pytest.fixture
def status_of() -> Callable[..., TaskStatus]:
    return status
