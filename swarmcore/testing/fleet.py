"""Scheduler and agents in one, for tests of what decides about tasks: moves tasks along as a real cluster would.

`Fleet.step` is pure in a transaction; `Swarm` runs leader components on a store in memory with a fleet beside them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, TaskState, UpdateStatus
from swarmcore.store.store import LeaderStore, Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.store import running_store


class Component(Protocol):
    """A leader component."""

    name: str

    async def run(self, store: LeaderStore) -> None: ...


class Fleet:
    """Every step moves every task that can move by one state. Set what fails, and what never stops, as you like."""

    def __init__(self) -> None:
        self.fails: Callable[[Task], bool] = lambda task: False
        """Tasks that fail instead of running."""
        self.completes: Callable[[Task], bool] = lambda task: task.HasField("job_iteration")
        """Running tasks that complete."""
        self.stops: Callable[[Task], bool] = lambda task: True
        """Tasks that stop when they are asked to."""
        self.allocates = True

    def step(self, tx: Transaction, now: Timestamp) -> int:
        """Move what can move; returns how many tasks did."""
        load = Counter(task.node_id for task in tx.task.all() if task.desired_state <= TaskState.COMPLETE)
        moved = 0
        for task in list(tx.task.all()):
            state, node_id = self._next(tx, task, load)
            if state == task.status.state:
                continue
            new = Task()
            new.CopyFrom(task)
            new.node_id = node_id
            load[node_id] += node_id != task.node_id
            new.status.state = state
            new.status.timestamp.CopyFrom(now)
            new.status.applied_at.CopyFrom(now)
            tx.task.update(new)
            moved += 1
        return moved

    def _next(self, tx: Transaction, task: Task, load: Counter[str]) -> tuple[TaskState.ValueType, str]:
        state, desired = task.status.state, task.desired_state
        if state == TaskState.NEW and self.allocates and desired <= TaskState.COMPLETE:
            return TaskState.PENDING, task.node_id
        if state == TaskState.PENDING and desired <= TaskState.COMPLETE:
            chosen = self._choose(tx, task, load)
            return (state, task.node_id) if chosen is None else (TaskState.ASSIGNED, chosen)
        node = tx.node.get(task.node_id)
        if not TaskState.ASSIGNED <= state <= TaskState.RUNNING or node is None or not _is_up(node):
            return state, task.node_id
        if desired > TaskState.COMPLETE:
            return (TaskState.SHUTDOWN if self.stops(task) else state), task.node_id
        if state < TaskState.READY:
            return TaskState.READY, task.node_id
        if state < TaskState.RUNNING and desired >= TaskState.RUNNING:
            return (TaskState.FAILED if self.fails(task) else TaskState.RUNNING), task.node_id
        if state == TaskState.RUNNING and self.fails(task):
            return TaskState.FAILED, task.node_id
        if state == TaskState.RUNNING and self.completes(task):
            return TaskState.COMPLETE, task.node_id
        return state, task.node_id

    def _choose(self, tx: Transaction, task: Task, load: Counter[str]) -> str | None:
        if task.node_id:
            node = tx.node.get(task.node_id)
            return task.node_id if node is not None and _takes_tasks(node) else None
        nodes = [node.id for node in tx.node.all() if _takes_tasks(node)]
        return min(nodes, key=lambda id: (load[id], id), default=None)


def _is_up(node: Node) -> bool:
    return node.status.state == NodeStatus.READY


def _takes_tasks(node: Node) -> bool:
    return _is_up(node) and node.spec.availability == NodeSpec.Availability.ACTIVE


class Swarm:
    """A store, a clock, leader components that run, and a fleet."""

    def __init__(self, store: Store, clock: SimulatedClock, components: Sequence[Component]) -> None:
        self.store = store
        self.clock = clock
        self.fleet = Fleet()
        self._components = components
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin a term."""
        writer = self.store.writer(1)
        self._running = [asyncio.create_task(each.run(writer), name=each.name) for each in self._components]

    async def stop(self) -> None:
        """End the term. A component that failed raises here."""
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def settle(self) -> None:
        """Let everything happen that happens without time passing."""
        quiet = 0
        while quiet < 2:
            before = self.store.version
            await let_the_loop_run(30)
            await self.store.update(lambda tx: self.fleet.step(tx, self.stamp()))
            await let_the_loop_run(30)
            quiet = quiet + 1 if self.store.version == before else 0

    async def advance(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, with everything that happens on the way."""
        await self.settle()
        while seconds > 0:
            await self.clock.advance(min(step, seconds))
            await self.settle()
            seconds -= step

    def stamp(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self.clock.now() * 1e9))
        return stamp

    # What tests do

    async def add_nodes(self, *ids: str) -> None:
        """Nodes that are READY and ACTIVE."""

        def write(tx: Transaction) -> None:
            for id in ids:
                node = Node(id=id)
                node.description.hostname = id
                node.spec.membership = NodeSpec.Membership.ACCEPTED
                node.status.state = NodeStatus.READY
                tx.node.create(node)

        await self.store.update(write)

    async def change_node(self, id: str, change: Callable[[Node], object]) -> None:
        def write(tx: Transaction) -> None:
            node = Node()
            old = tx.node.get(id)
            assert old is not None
            node.CopyFrom(old)
            change(node)
            tx.node.update(node)

        await self.store.update(write)

    async def set_availability(self, id: str, availability: NodeSpec.Availability.ValueType) -> None:
        await self.change_node(id, lambda node: setattr(node.spec, "availability", availability))

    async def set_node_state(self, id: str, state: NodeStatus.State.ValueType) -> None:
        await self.change_node(id, lambda node: setattr(node.status, "state", state))

    async def create_service(self, service: Service) -> None:
        """Store a service as the control API does."""

        def write(tx: Transaction) -> None:
            new = Service()
            new.CopyFrom(service)
            new.spec_version.SetInParent()
            if new.spec.WhichOneof("mode") in ("replicated_job", "global_job"):
                new.job_status.job_iteration.SetInParent()
            tx.service.create(new)

        await self.store.update(write)

    async def update_service(self, id: str, change: Callable[[Service], object]) -> None:
        """Change the spec of a service as the control API does."""

        def write(tx: Transaction) -> None:
            old = tx.service.get(id)
            assert old is not None
            new = Service()
            new.CopyFrom(old)
            new.previous_spec.CopyFrom(old.spec)
            new.previous_spec_version.CopyFrom(old.spec_version)
            new.spec_version.index = old.meta.version.index
            new.ClearField("update_status")
            if new.HasField("job_status"):
                new.job_status.job_iteration.index += 1
            change(new)
            tx.service.update(new)

        await self.store.update(write)

    async def remove_service(self, id: str) -> None:
        await self.store.update(lambda tx: tx.service.delete(id))

    # What tests look at

    def service(self, id: str) -> Service:
        service = self.store.view.service.get(id)
        assert service is not None
        return service

    def update_state(self, id: str) -> str:
        return UpdateStatus.UpdateState.Name(self.service(id).update_status.state)

    def tasks(self, service_id: str) -> list[Task]:
        return list(self.store.view.task.by("service", service_id))

    def wanted(self, service_id: str) -> list[Task]:
        """Tasks that are meant to run."""
        return [task for task in self.tasks(service_id) if task.desired_state <= TaskState.RUNNING]

    def running(self, service_id: str) -> list[Task]:
        """Tasks that are meant to run and do, on nodes that are up."""
        return [
            task
            for task in self.wanted(service_id)
            if task.status.state == TaskState.RUNNING
            and (node := self.store.view.node.get(task.node_id)) is not None
            and node.status.state == NodeStatus.READY
        ]


@asynccontextmanager
async def running_swarm(
    make: Callable[[SimulatedClock], Sequence[Component]], nodes: Sequence[str] = ("n1", "n2", "n3")
) -> AsyncIterator[Swarm]:
    """A swarm whose components, made by `make`, run."""
    clock = SimulatedClock(settle=lambda: let_the_loop_run(30))
    async with running_store(clock.now) as store:
        swarm = Swarm(store, clock, make(clock))
        await swarm.add_nodes(*nodes)
        swarm.start()
        try:
            yield swarm
        finally:
            await swarm.stop()
