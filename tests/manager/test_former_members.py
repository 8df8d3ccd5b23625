"""Members of a replaced group are looked for where they were, and told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.objects_pb2 import Cluster
from swarmcore.api.raft_pb2_grpc import RaftServicer, add_RaftServicer_to_server
from swarmcore.ca.notice import is_signed
from swarmcore.ca.root import RootCA
from swarmcore.manager.former_members import FormerMembers
from swarmcore.raft.membership import AddLearner, Membership
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.store import running_store


class OldManager(RaftServicer):
    def __init__(self, group: str) -> None:
        self.told: asyncio.Queue[pb.RaftReplacedNotice] = asyncio.Queue()
        self._group = group

    async def Replaced(self, request: pb.RaftReplacedNotice, context: object) -> pb.RaftReplacedAnswer:
        self.told.put_nowait(request)
        return pb.RaftReplacedAnswer(is_leaving=request.old_group == self._group)


class Group:
    raft_id = 1

    def __init__(self, membership: Membership) -> None:
        self.membership = membership


def dial(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


async def test_they_are_told_with_the_roots_signature_and_again_when_they_come_back() -> None:
    root = RootCA.create(now=time.time())
    server = grpc.aio.server()
    old = OldManager("first")  # type: ignore[abstract]
    add_RaftServicer_to_server(old, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    first = Membership.single("m1", "here:1").made_anew(id=1, node_id="m1", address="here:1", group="first")
    grown = first.after(AddLearner("m2", f"127.0.0.1:{port}"))
    assert isinstance(grown, Membership)
    group = Group(grown.made_anew(id=1, node_id="m1", address="there:1", group="second"))
    clock = SimulatedClock()

    def write(tx: Transaction) -> None:
        cluster = Cluster(id="c1")
        cluster.spec.annotations.name = "default"
        cluster.root_ca.ca_key = root.key_pem or b""
        tx.cluster.create(cluster)

    try:
        async with running_store(time.time) as store, asyncio.timeout(20):
            await store.update(write)
            work = asyncio.create_task(FormerMembers(group, "c1", dial, clock).run(store.writer(1)))
            notice = await old.told.get()
            assert (notice.old_group, notice.new_group, notice.addr) == ("first", "second", "there:1")
            assert is_signed(notice, "c1", root.certificates)
            await clock.until_done(asyncio.ensure_future(old.told.get()), step=1.0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    finally:
        await server.stop(None)


async def test_a_group_that_replaced_none_looks_for_nobody() -> None:
    def no_dial(address: str) -> Any:
        pytest.fail(f"nobody is at {address}")

    group = Group(Membership.single("m1", "here:1"))
    async with running_store(time.time) as store:
        work = asyncio.create_task(FormerMembers(group, "c1", no_dial, SimulatedClock()).run(store.writer(1)))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
