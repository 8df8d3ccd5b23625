"""The agent and our own dispatcher, over a socket: what each writes is what the other reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from swarmcore.agent.agent import Agent
from swarmcore.agent.connections import RemoteConnections
from swarmcore.agent.remotes import RemotePeer, Remotes
from swarmcore.api.caller import Caller
from swarmcore.api.dispatcher_pb2_grpc import add_DispatcherServicer_to_server
from swarmcore.api.objects_pb2 import Node, Secret, Task
from swarmcore.api.types_pb2 import NodeRole, NodeStatus, Peer, TaskState, WeightedPeer
from swarmcore.dispatcher.dispatcher import Dispatcher
from swarmcore.store.store import LeaderStore, Store
from swarmcore.testing.executors import FakeExecutor
from swarmcore.testing.store import running_store


@dataclass(kw_only=True)
class Cluster:
    store: Store
    agent: Agent
    executor: FakeExecutor

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while True:
                if fact():
                    return
                await asyncio.sleep(0.002)

    def state(self, task_id: str) -> TaskState.ValueType:
        task = self.store.view.task.get(task_id)
        assert task is not None
        return task.status.state

    async def create(self, task: Task) -> None:
        await self.store.update(lambda tx: tx.task.create(task))

    async def desire(self, task_id: str, desired: TaskState.ValueType) -> None:
        task = Task()
        found = self.store.view.task.get(task_id)
        assert found is not None
        task.CopyFrom(found)
        task.desired_state = desired
        await self.store.update(lambda tx: tx.task.update(task))


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    async with running_store() as store:
        await store.update(lambda tx: tx.node.create(Node(id="node")))
        server = grpc.aio.server()
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        peer = WeightedPeer(peer=Peer(node_id="manager", addr=address), weight=10)
        dispatcher = Dispatcher(
            lambda _: Caller(node_id="node", role=NodeRole.WORKER, remote_addr="127.0.0.1"), lambda: [peer], "manager"
        )
        add_DispatcherServicer_to_server(dispatcher, server)
        await server.start()
        leading = asyncio.ensure_future(dispatcher.run(LeaderStore(store, 1)))
        remotes = Remotes()
        remotes.observe(RemotePeer("manager", address), 10)
        executor = FakeExecutor()
        agent = Agent(
            node_id="node",
            executors={"container": executor},
            state_dir=folder,
            connect=RemoteConnections(remotes, grpc.aio.insecure_channel),
            on_managers=remotes.replace,
        )
        running = asyncio.ensure_future(agent.run())
        try:
            await asyncio.wait_for(agent.wait_ready(), 10)
            yield Cluster(store=store, agent=agent, executor=executor)
        finally:
            running.cancel()
            await asyncio.wait([running])
            leading.cancel()
            await asyncio.wait([leading])
            await server.stop(None)


def task(task_id: str = "t") -> Task:
    made = Task(id=task_id, service_id="s", node_id="node", desired_state=TaskState.RUNNING)
    made.spec.container.image = "redis"
    made.spec.container.secrets.add(secret_id="s1")  # noqa: S106 - an id
    made.status.state = TaskState.ASSIGNED
    return made


async def test_a_task_runs_is_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as at:
        secret = Secret(id="s1")
        secret.spec.data = b"x"
        await at.store.update(lambda tx: tx.secret.create(secret))
        node = at.store.view.node.get("node")
        assert node is not None and node.status.state == NodeStatus.READY
        assert [each.name for each in node.description.engine.plugins] == ["container"]

        await at.create(task())
        await at.until(lambda: at.state("t") == TaskState.RUNNING)
        assert at.executor.controllers["t"].dependencies.secrets["s1"].spec.data == b"x"

        await at.desire("t", TaskState.REMOVE)
        await at.until(lambda: at.state("t") == TaskState.SHUTDOWN)
        await at.store.update(lambda tx: tx.task.delete("t"))
        await at.until(lambda: not at.agent.worker.managers)
        assert at.executor.engine.tasks == {}


async def test_a_hundred_tasks_run_and_end(tmp_path: Path) -> None:
    async with cluster(tmp_path) as at:
        names = [f"t{number:03}" for number in range(100)]
        await at.store.batch(names, lambda tx, name: tx.task.create(task(name)))
        await at.until(lambda: all(at.state(name) == TaskState.RUNNING for name in names))

        for name in names:
            at.executor.engine.end(name, 1)

        await at.until(lambda: all(at.state(name) == TaskState.FAILED for name in names))
