"""The agent's worker and a real engine: what many containers cost, and an engine that stops and starts."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmcore.agent.description import Describer
from swarmcore.agent.reporter import Reporter
from swarmcore.agent.worker import Worker
from swarmcore.api.dispatcher_pb2 import AssignmentChange, AssignmentsMessage
from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import NodeTLSInfo, TaskState, TaskStatus
from swarmcore.plugin.executor import Executor, HostInfo
from swarmcore.testing import engines
from swarmcore.testing.engines import DockerEngine

factory = pytest.importorskip("swarmcore_docker_executor.factory")

pytestmark = pytest.mark.engine

CONTAINERS = 100
CPU_SECONDS = 2.0
THREADS = 16
POLITE = ("sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.1; done")


class Node:
    """A worker with one engine."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor = executor
        executors = {"container": executor}
        self.worker = Worker(executors=executors, folder=folder / "worker", reporter=Reporter())
        self.describer = Describer(
            executors, hostname="", generic=(), tls_info=NodeTLSInfo, on_return=self.worker.nudge
        )

    @classmethod
    async def on(cls, engine: DockerEngine, folder: Path) -> Node:
        host = HostInfo(state_dir=str(folder), engine_addr=engine.address)
        node = cls(await factory.DockerFactory().create(host), folder)
        await node.worker.start()
        return node

    async def assign(self, *tasks: Task) -> None:
        message = AssignmentsMessage(type=AssignmentsMessage.INCREMENTAL)
        for task in tasks:
            message.changes.add(action=AssignmentChange.UPDATE).assignment.task.CopyFrom(task)
        await self.worker.assign(message)

    def status(self, task: Task) -> TaskStatus:
        return self.worker.managers[task.id].status

    async def until(self, fact: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while True:
                if fact():
                    return
                await asyncio.sleep(0.02)

    async def aclose(self) -> None:
        await self.worker.leave()
        await self.worker.aclose()
        await self.executor.aclose()


def container(slot: int, *command: str) -> Task:
    task = Task(id=new_id(), service_id="s", slot=slot, node_id="n", desired_state=TaskState.RUNNING)
    task.service_annotations.name = "many"
    task.status.state = TaskState.ASSIGNED
    task.spec.container.image = "redis:3.0.5"
    task.spec.container.command.extend(command)
    task.spec.container.stop_grace_period.nanos = 1
    return task


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def crowded_engine() -> Iterator[DockerEngine]:
    """An engine of its own: libnetwork of Docker 20.10 can lock up when many containers end at once."""
    reason = engines.missing_engine()
    if reason is not None:
        pytest.skip(reason)
    with engines.docker_engine() as engine:
        yield engine


@pytest.mark.slow
async def test_a_hundred_containers_cost_the_agent_little(crowded_engine: DockerEngine, tmp_path: Path) -> None:
    tasks = [container(slot, "sleep", "1000") for slot in range(1, CONTAINERS + 1)]
    threads, most = threading.active_count(), 0
    node = await Node.on(crowded_engine, tmp_path)
    before = cpu_seconds()

    def all_run() -> bool:
        nonlocal most
        most = max(most, threading.active_count() - threads)
        return all(node.status(task).state == TaskState.RUNNING for task in tasks)

    await node.assign(*tasks)
    await node.until(all_run, 120)
    started = cpu_seconds() - before
    await node.aclose()

    assert started <= CPU_SECONDS
    assert most < THREADS
    assert crowded_engine.containers(service="many") == []


async def test_tasks_of_an_engine_that_stops_end_with_a_reason_when_it_is_back(tmp_path: Path) -> None:
    reason = engines.missing_engine()
    if reason is not None:
        pytest.skip(reason)
    with engines.docker_engine() as engine:
        node = await Node.on(engine, tmp_path)
        running, late = [container(slot, *POLITE) for slot in (1, 2, 3)], container(4, "sleep", "1000")
        await node.assign(*running)
        await node.until(lambda: all(node.status(task).state == TaskState.RUNNING for task in running), 20)

        await asyncio.to_thread(engine.stop)
        await node.assign(late)
        await node.describer.describe()
        await node.until(lambda: bool(node.status(late).err), 10)
        waiting = node.status(late).state
        said = node.status(late).err

        again = await asyncio.to_thread(engines.start_docker, engine.folder)
        try:
            await node.until(lambda: all(node.status(task).state > TaskState.RUNNING for task in running), 5)
            await node.describer.describe()
            await node.until(lambda: node.status(late).state == TaskState.RUNNING, 10)
            ends = [node.status(task) for task in running]
            await node.aclose()
        finally:
            await asyncio.to_thread(again.stop)

    assert waiting == TaskState.PREPARING
    assert said.startswith("no answer from the Docker engine at")
    assert {end.state for end in ends} == {TaskState.FAILED}
    assert all(end.err.startswith("task: non-zero exit") and end.container.exit_code for end in ends)
