"""Several replicas on real folders and real sockets in one process: they join, lead, die and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.caller import Caller, set_caller
from swarmcore.api.raft_pb2_grpc import RaftStub, add_RaftServicer_to_server
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.replication.replica import Replica
from swarmcore.replication.service import RaftService
from swarmcore.replication.snapshots import Limits
from swarmcore.replication.transport import Transport
from swarmcore.store.store import Store
from swarmcore.together import run_together

WAIT_SECONDS = 20.0


class _Named(grpc.aio.ServerInterceptor):
    """The caller is whom the call's metadata names: these tests are about agreement, not about trust."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        node_id = str(dict(details.invocation_metadata or ()).get("node", ""))

        def named(inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
            async def answer(request: Any, context: Any) -> Any:
                set_caller(Caller(node_id=node_id, role=NodeRole.MANAGER, remote_addr="127.0.0.1"))
                return await inner(request, context)

            return answer

        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        return make(named(inner), handler.request_deserializer, handler.response_serializer)


class _NamingStreams(grpc.aio.StreamUnaryClientInterceptor):
    """Puts the node's name into each stream."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        named = grpc.aio.Metadata(*(details.metadata or ()), ("node", self._node_id))
        return await continuation(details._replace(metadata=named), requests)


class _NamingCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Puts the node's name into each call."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details._replace(metadata=grpc.aio.Metadata(("node", self._node_id))), request)


class GroupMember:
    """One manager's replica, store, server and transport."""

    def __init__(self, node_id: str, folder: Path, limits: Limits) -> None:
        self.node_id = node_id
        self._folder = folder
        self._limits = limits
        self._port = 0
        self._server: grpc.aio.Server | None = None
        self._work: asyncio.Task[None] | None = None
        self.store = Store()
        self.replica: Replica

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def dial(self, address: str) -> grpc.aio.Channel:
        names = [_NamingStreams(self.node_id), _NamingCalls(self.node_id)]
        return grpc.aio.insecure_channel(address, interceptors=names)

    async def start(self, *, join: GroupMember | None = None, bootstrap: bool = False) -> None:
        """Serve and run: a new cluster, a new member of `join`'s, or what is in the folder."""
        self.store = Store()
        server = grpc.aio.server(interceptors=[_Named()])
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        joined_as, introduced, group = None, {}, ""
        if join is not None:
            async with self.dial(join.address) as channel:
                stub: Any = RaftStub(channel)
                raft_id = self.replica.raft_id if self._folder.exists() else 0
                answer = await stub.Join(pb.RaftJoinRequest(addr=self.address, raft_id=raft_id))
            joined_as, group = answer.raft_id, answer.group
            introduced = {member.raft_id: member.addr for member in answer.members}
        transport = Transport(self.dial, introduced)
        self.replica = await Replica.open(
            folder=self._folder,
            store=self.store,
            node_id=self.node_id,
            address=self.address,
            bootstrap=bootstrap,
            joined_as=joined_as,
            joined_group=group,
            limits=self._limits,
            send=transport.send,
        )
        self.store.connect(self.replica)
        add_RaftServicer_to_server(RaftService(self.replica, lambda address, caller: address), server)  # type: ignore[arg-type]
        await server.start()
        self._server = server
        self._work = asyncio.create_task(
            run_together(self.replica.run(), self.store.run(), transport.run(self.replica)), name=self.node_id
        )

    async def stop(self) -> None:
        """End it without a word to the others."""
        if self._work is None or self._server is None:
            return
        await self._server.stop(0)
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work
        await self.replica.aclose()
        self._work = self._server = None


class ManagerGroup:
    """A founder and whoever joined."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self._folder = folder
        self._limits = limits or Limits()
        self.members: dict[str, GroupMember] = {}

    async def add(self, node_id: str) -> GroupMember:
        """Start one more manager: the first founds the group, others join it by its leader."""
        member = GroupMember(node_id, self._folder / node_id, self._limits)
        leader = await self.leader() if self.members else None
        await member.start(join=leader, bootstrap=leader is None)
        self.members[node_id] = member
        return member

    async def leader(self, *, besides: str = "") -> GroupMember:
        """The one that leads, waiting for it."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                for member in self.members.values():
                    if member.node_id != besides and member._work is not None and member.replica.term:
                        return member
                await asyncio.sleep(0.01)

    async def wait(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not what():  # noqa: ASYNC110 - any fact of any member: there is no one event
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def manager_group(folder: Path, count: int, limits: Limits | None = None) -> AsyncIterator[ManagerGroup]:
    """A group of `count` voters."""
    group = ManagerGroup(folder, limits)
    try:
        for number in range(1, count + 1):
            await group.add(f"m{number}")
        leader = await group.leader()
        await group.wait(lambda: len(leader.replica.membership.voters) == count)
        yield group
    finally:
        for member in group.members.values():
            await member.stop()
