"""The simulated workers are nodes like any other: joined by token over the real port, with sessions and reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench import grpc_connection, h2
from bench.workers import Connect, Fleet, Target
from swarmcore.api.caller import current_caller
from swarmcore.api.dispatcher_pb2_grpc import add_DispatcherServicer_to_server
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.dispatcher.dispatcher import Dispatcher
from swarmcore.testing.trust import TrustedManager, trusted_manager


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[TrustedManager]:
    dispatcher = Dispatcher(lambda _: current_caller(), list, "manager-1")
    async with trusted_manager(tmp_path, services=[(add_DispatcherServicer_to_server, dispatcher)]) as made:
        leading = asyncio.create_task(dispatcher.run(made.store.writer(1)))
        yield made
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)


def target_of(manager: TrustedManager, token: str | None = None) -> Target:
    host, _, port = manager.address.rpartition(":")
    return Target(host, int(port), manager.token() if token is None else token)


@pytest.mark.parametrize("connect", [h2.connect, grpc_connection.connect])
async def test_every_task_of_the_fleet_is_reported_running(manager: TrustedManager, connect: Connect) -> None:
    fleet = Fleet(connect)
    await fleet.join(target_of(manager), 3)
    tasks = []
    for number in range(30):
        task = Task(id=f"{number:025d}", node_id=fleet.workers[number % 3].node_id, desired_state=TaskState.RUNNING)
        task.status.state = TaskState.ASSIGNED
        tasks.append(task)

    with manager.store.subscribe(("task",)) as changes:
        await manager.store.batch(tasks, lambda tx, task: tx.task.create(task))
        async with asyncio.timeout(20):
            await fleet.counts.wait_running(30)
            while any(task.status.state != TaskState.RUNNING for task in manager.store.view.task.all()):
                await changes.get()

    nodes = [node for node in manager.store.view.node.all() if node.description.hostname.startswith("simulated-")]
    assert len(nodes) == 3
    assert all(node.status.state == NodeStatus.READY for node in nodes)
    assert fleet.counts.errors == []
    fleet.close()


async def test_a_root_that_the_token_does_not_name_is_not_trusted(manager: TrustedManager) -> None:
    prefix, version, _, secret = manager.token().split("-")
    forged = "-".join([prefix, version, "0" * 50, secret])

    with pytest.raises(h2.CallError, match="is not the one that the token names"):
        await Fleet().join(target_of(manager, forged), 1)
