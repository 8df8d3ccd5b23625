"""The dispatcher behind a real gRPC server, on a socket of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest

from swarmcore.api.caller import Caller, current_caller, set_caller
from swarmcore.api.dispatcher_pb2 import (
    AssignmentsMessage,
    AssignmentsRequest,
    HeartbeatRequest,
    SessionRequest,
    UpdateTaskStatusRequest,
)
from swarmcore.api.dispatcher_pb2_grpc import DispatcherStub, add_DispatcherServicer_to_server
from swarmcore.api.objects_pb2 import Node, Secret
from swarmcore.api.types_pb2 import NodeRole, TaskState
from swarmcore.clock import SystemClock
from swarmcore.dispatcher.dispatcher import Dispatcher
from swarmcore.errors import SwarmError
from swarmcore.store.store import LeaderStore, Store
from swarmcore.testing.store import running_store

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _ByHeader(grpc.aio.ServerInterceptor):
    """Believes the caller's own word about who it is, and turns our errors into statuses."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        node_id = str(dict(details.invocation_metadata or ())["node"])
        caller = Caller(node_id=node_id, role=NodeRole.WORKER, remote_addr="127.0.0.1")
        if handler.response_streaming:

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                set_caller(caller)
                try:
                    async for message in handler.unary_stream(request, context):
                        yield message
                except SwarmError as error:
                    await context.abort(_CODES[int(error.status)], str(error))

            return grpc.unary_stream_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )

        async def unary(request: Any, context: Any) -> Any:
            set_caller(caller)
            try:
                return await handler.unary_unary(request, context)
            except SwarmError as error:
                await context.abort(_CODES[int(error.status)], str(error))

        return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)


class Served:
    """A leading dispatcher and a stub that speaks to it."""

    def __init__(self, store: Store, stub: Any, leading: asyncio.Task[None]) -> None:
        self.store = store
        self.stub = stub
        self.leading = leading

    async def register(self, node_id: str) -> tuple[Any, str]:
        session = self.stub.Session(SessionRequest(), metadata=(("node", node_id),))
        return session, (await session.read()).session_id

    async def until(self, holds: Callable[[], bool]) -> None:
        with self.store.subscribe() as changes:
            while not holds():
                await asyncio.wait_for(changes.get(), 10)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_store() as store:
        dispatcher = Dispatcher(lambda _: current_caller(), list, "manager-1", SystemClock(), rng=Random(3))
        server = grpc.aio.server(interceptors=[_ByHeader()])
        add_DispatcherServicer_to_server(dispatcher, server)
        address = f"unix:{tmp_path / 's'}"
        server.add_insecure_port(address)
        await server.start()
        for id in ("n1", "n2"):
            node = Node(id=id)
            await store.update(lambda tx, node=node: tx.node.create(node))  # type: ignore[misc]
        leading = asyncio.create_task(dispatcher.run(LeaderStore(store, 1)))
        # The limit that agents of old engines have.
        options = [("grpc.max_receive_message_length", 4 * 1024 * 1024)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            yield Served(store, DispatcherStub(channel), leading)
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await server.stop(0)


async def test_a_task_travels_to_its_node_and_its_status_back(served: Served, task_of: Any) -> None:
    session, session_id = await served.register("n1")
    me = (("node", "n1"),)
    watch = served.stub.Assignments(AssignmentsRequest(session_id=session_id), metadata=me)
    first = await watch.read()

    await served.store.update(lambda tx: tx.task.create(task_of("t1", "n1")))
    second = await asyncio.wait_for(watch.read(), 10)
    report = UpdateTaskStatusRequest(session_id=session_id)
    report.updates.add(task_id="t1").status.state = TaskState.RUNNING
    await served.stub.UpdateTaskStatus(report, metadata=me)
    await served.until(lambda: served.store.view.task.get("t1").status.state == TaskState.RUNNING)  # type: ignore[union-attr]
    period = (await served.stub.Heartbeat(HeartbeatRequest(session_id=session_id), metadata=me)).period

    assert first.type == AssignmentsMessage.COMPLETE
    assert [change.assignment.task.id for change in second.changes] == ["t1"]
    assert 4 <= period.seconds <= 5
    session.cancel()
    watch.cancel()


async def test_a_node_with_more_than_a_message_holds_gets_everything(served: Served, task_of: Any) -> None:
    """24 MB of secrets for an agent that takes 4 MiB at a time."""
    for number in range(60):
        secret = Secret(id=f"s{number}")
        secret.spec.annotations.name = secret.id
        secret.spec.data = b"x" * 400_000
        await served.store.update(lambda tx, secret=secret: tx.secret.create(secret))  # type: ignore[misc]
    for number in range(60):
        task = task_of(f"t{number}", "n1", secrets=[f"s{number}"])
        await served.store.update(lambda tx, task=task: tx.task.create(task))  # type: ignore[misc]
    session, session_id = await served.register("n1")

    watch = served.stub.Assignments(AssignmentsRequest(session_id=session_id), metadata=(("node", "n1"),))
    got: set[str] = set()
    messages = 0
    while len(got) < 120:
        message = await asyncio.wait_for(watch.read(), 10)
        messages += 1
        got |= {change.assignment.task.id or change.assignment.secret.id for change in message.changes}

    assert messages > 6
    session.cancel()
    watch.cancel()


async def test_another_nodes_session_is_of_no_use(served: Served) -> None:
    session, session_id = await served.register("n1")
    await served.register("n2")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.stub.Heartbeat(HeartbeatRequest(session_id=session_id), metadata=(("node", "n2"),))

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    session.cancel()


async def test_agents_are_sent_away_when_leadership_ends(served: Served) -> None:
    session, session_id = await served.register("n1")
    watch = served.stub.Assignments(AssignmentsRequest(session_id=session_id), metadata=(("node", "n1"),))
    await watch.read()

    served.leading.cancel()
    await asyncio.gather(served.leading, return_exceptions=True)

    assert (await asyncio.wait_for(session.read(), 10)).session_id == session_id
    with pytest.raises(grpc.aio.AioRpcError) as sent_away:
        await session.read()
    assert sent_away.value.code() == grpc.StatusCode.ABORTED
    assert sent_away.value.details() == "node must disconnect"
    assert await watch.code() == grpc.StatusCode.ABORTED
    with pytest.raises(grpc.aio.AioRpcError) as stopped:
        await served.stub.Heartbeat(HeartbeatRequest(session_id=session_id), metadata=(("node", "n1"),))
    assert stopped.value.details() == "dispatcher is stopped"
