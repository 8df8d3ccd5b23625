"""What a manager takes from the others: only what their certificate may say, and only what makes sense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.raft_pb2_grpc import RaftStub
from swarmcore.raft.membership import Membership, Remove
from swarmcore.raft.messages import Heartbeat, InstallSnapshot, Message
from swarmcore.raft.types import SnapshotMeta
from swarmcore.replication import service as service_module
from swarmcore.replication.codec import encode
from swarmcore.testing.manager_group import GroupMember, ManagerGroup, manager_group

HEARTBEAT = Heartbeat(sender=2, to=1, term=1, commit=0)
SNAPSHOT = SnapshotMeta(index=99, term=1, membership=Membership.single("m1", ""))


def announced(sender: int = 2, to: int = 1) -> pb.RaftMessage:
    return encode(InstallSnapshot(sender=sender, to=to, term=1, snapshot=SNAPSHOT))


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[ManagerGroup]:
    """m1 leads as raft member 1; m2 is member 2."""
    async with manager_group(tmp_path, 2) as group:
        yield group


async def deliver(group: ManagerGroup, caller: GroupMember, *messages: Message) -> grpc.aio.AioRpcError | None:
    """Send to m1 in the name of `caller`; what the stream ended with."""
    async with caller.dial(group.members["m1"].address) as channel:
        stub: Any = RaftStub(channel)
        call = stub.Deliver()
        await call.write(pb.RaftBatch(messages=[encode(message) for message in messages]))
        await call.done_writing()
        return await outcome(call)


async def install(
    group: ManagerGroup, caller: GroupMember, *parts: pb.RaftSnapshotPart, is_ended: bool = True
) -> grpc.aio.AioRpcError | None:
    async with caller.dial(group.members["m1"].address) as channel:
        stub: Any = RaftStub(channel)
        call = stub.Install()
        for part in parts:
            await call.write(part)
        if is_ended:
            await call.done_writing()
        return await outcome(call)


async def outcome(call: Any) -> grpc.aio.AioRpcError | None:
    try:
        async with asyncio.timeout(10):
            await call
    except grpc.aio.AioRpcError as error:
        return error
    return None


def code(error: grpc.aio.AioRpcError | None) -> grpc.StatusCode | None:
    """The status of the manager's own errors, which the interceptors of a real one translate."""
    if error is None:
        return None
    names = {
        "NotFoundError": grpc.StatusCode.NOT_FOUND,
        "PermissionDeniedError": grpc.StatusCode.PERMISSION_DENIED,
        "InvalidArgumentError": grpc.StatusCode.INVALID_ARGUMENT,
        "AbortedError": grpc.StatusCode.ABORTED,
    }
    return next((status for name, status in names.items() if name in (error.details() or "")), error.code())


async def test_a_member_is_heard(group: ManagerGroup) -> None:
    assert await deliver(group, group.members["m2"], HEARTBEAT) is None


async def test_nobody_speaks_for_another_member(group: ManagerGroup, tmp_path: Path) -> None:
    stranger = GroupMember("m9", tmp_path / "m9", group._limits)

    error = await deliver(group, stranger, HEARTBEAT)

    assert code(error) is grpc.StatusCode.PERMISSION_DENIED
    assert "node m9 is not raft member 2" in str(error)


async def test_what_is_for_another_member_is_refused(group: ManagerGroup) -> None:
    error = await deliver(group, group.members["m2"], Heartbeat(sender=2, to=7, term=1, commit=0))

    assert code(error) is grpc.StatusCode.INVALID_ARGUMENT
    assert "raft member 7 is not here: this is 1" in str(error)


async def test_who_was_removed_is_told_so(group: ManagerGroup) -> None:
    leader = await group.leader()
    await leader.replica.change_membership(Remove(2))

    error = await deliver(group, group.members["m2"], HEARTBEAT)

    assert code(error) is grpc.StatusCode.NOT_FOUND
    assert "member was removed" in str(error)


async def test_a_message_of_no_known_kind_is_refused(group: ManagerGroup) -> None:
    async with group.members["m2"].dial(group.members["m1"].address) as channel:
        stub: Any = RaftStub(channel)
        call = stub.Deliver()
        await call.write(pb.RaftBatch(messages=[pb.RaftMessage(sender=2, to=1, term=1)]))
        await call.done_writing()

        assert code(await outcome(call)) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "does not begin with its header"),
        ([pb.RaftSnapshotPart(piece=b"x")], "does not begin with its header"),
        ([pb.RaftSnapshotPart(header=encode(HEARTBEAT))], "announces none"),
        ([pb.RaftSnapshotPart(header=announced(to=7))], "raft member 7 is not here"),
        ([pb.RaftSnapshotPart(header=announced())], "ended in its middle"),
        ([pb.RaftSnapshotPart(header=announced()), pb.RaftSnapshotPart(piece=b"x")], "ended in its middle"),
        ([pb.RaftSnapshotPart(header=announced()), pb.RaftSnapshotPart(end=3)], "ended in its middle"),
        ([pb.RaftSnapshotPart(header=announced()), pb.RaftSnapshotPart()], "ended in its middle"),
        ([pb.RaftSnapshotPart(header=announced(), first=4), pb.RaftSnapshotPart(end=4)], "0 pieces of the snapshot"),
    ],
)
async def test_a_snapshot_that_is_not_whole_changes_nothing(
    group: ManagerGroup, parts: list[pb.RaftSnapshotPart], reason: str
) -> None:
    before = group.members["m1"].replica.snapshot_index

    error = await install(group, group.members["m2"], *parts)

    assert reason in str(error)
    assert group.members["m1"].replica.snapshot_index == before


async def test_a_snapshot_of_which_nothing_more_comes_is_given_up(
    group: ManagerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "PART_SECONDS", 0.2)

    error = await install(
        group,
        group.members["m2"],
        pb.RaftSnapshotPart(header=announced()),
        pb.RaftSnapshotPart(piece=b"x"),
        is_ended=False,
    )

    assert "no part of the snapshot came for 0.2 s: send it again" in str(error)


async def test_who_asks_what_was_received_must_be_the_one_that_sends(group: ManagerGroup, tmp_path: Path) -> None:
    stranger = GroupMember("m9", tmp_path / "m9", group._limits)
    async with stranger.dial(group.members["m1"].address) as channel:
        stub: Any = RaftStub(channel)

        error = await outcome(stub.Received(pb.RaftReceivedRequest(header=announced())))

        assert "node m9 is not raft member 2" in str(error)
