"""The transport between managers on real sockets, with a member at the other end that does whatever may happen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.raft_pb2_grpc import RaftServicer, add_RaftServicer_to_server
from swarmcore.ca.channels import WATCHED
from swarmcore.raft.events import Event, MemberUnreachable, SnapshotSent
from swarmcore.raft.membership import Member, Membership, Move, Remove
from swarmcore.raft.messages import AppendRequest, Heartbeat, InstallSnapshot
from swarmcore.raft.types import Entry, EntryKind, SnapshotMeta
from swarmcore.replication import snapshot_sender
from swarmcore.replication import transport as transport_module
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.outbox import MAX_BYTES, MAX_MESSAGES
from swarmcore.replication.snapshot_file import SnapshotReader, SnapshotWriter
from swarmcore.replication.transport import Transport
from swarmcore.testing.wire import wire

WAIT_SECONDS = 20.0
MEBIBYTE = 1024 * 1024


class Leader:
    """Satisfies `transport.Group`: notes what it is told."""

    def __init__(self, address: str, folder: Path) -> None:
        members = {
            1: Member(id=1, node_id="node-1", address="127.0.0.1:1", is_voter=True),
            2: Member(id=2, node_id="node-2", address=address, is_voter=True),
        }
        self.membership = Membership(members, 2)
        self.raft_id = 1
        self.group = ""
        self.address = "127.0.0.1:1"
        self.heard_at: dict[int, str] = {}
        self.leader = members[1]
        self.told: list[Event] = []
        self._folder = folder
        self._keys: KeyRing | None = None

    def tell(self, event: Event) -> object:
        self.told.append(event)
        return None

    def replaced(self, details: str) -> None:
        raise AssertionError(details)

    async def open_snapshot(self, snapshot: SnapshotMeta) -> SnapshotReader:
        """A snapshot of as many pieces as its index says."""
        if self._keys is None:
            self._keys = KeyRing.create(self._folder / "keys.json")
        writer = SnapshotWriter(self._folder, self._keys, snapshot.index, b"description")
        for number in range(snapshot.index):
            writer.add(b"%d" % number)
        return SnapshotReader(writer.finish(), self._keys)

    def times_unreachable(self) -> int:
        return self.told.count(MemberUnreachable(2))

    def move(self, address: str) -> None:
        moved = self.membership.after(Move(2, address))
        assert isinstance(moved, Membership)
        self.membership = moved


_Servicer: Any = RaftServicer
"""What refuses every call; its stub demands that all be there."""


class Other(_Servicer):  # type: ignore[misc]
    """The member at the other end: it takes everything, until told otherwise."""

    def __init__(self) -> None:
        self.messages: list[pb.RaftMessage] = []
        self.parts: list[pb.RaftSnapshotPart] = []
        self.streams = 0
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.is_deaf = False
        self.held = 0
        """So many pieces of a snapshot it says that it has."""
        self.released = asyncio.Event()

    async def Deliver(self, request_iterator: Any, context: Any) -> pb.RaftDelivered:
        self.streams += 1
        if self.refusal is not None:
            await context.abort(*self.refusal)
        if self.is_deaf:
            await self.released.wait()
        async for batch in request_iterator:
            self.messages.extend(batch.messages)
        return pb.RaftDelivered()

    async def Received(self, request: pb.RaftReceivedRequest, context: Any) -> pb.RaftReceivedResponse:
        return pb.RaftReceivedResponse(pieces=self.held)

    async def Install(self, request_iterator: Any, context: Any) -> pb.RaftInstalled:
        if self.is_deaf:
            await self.released.wait()
        async for part in request_iterator:
            self.parts.append(part)
        return pb.RaftInstalled()


@contextlib.asynccontextmanager
async def serving(other: Other) -> AsyncIterator[str]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    add_RaftServicer_to_server(other, server)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        other.released.set()
        await server.stop(0)


@contextlib.asynccontextmanager
async def running(leader: Leader, options: tuple[tuple[str, int], ...] = ()) -> AsyncIterator[Transport]:
    transport = Transport(lambda address: grpc.aio.insecure_channel(address, options=options))
    task = asyncio.create_task(transport.run(leader))
    try:
        yield transport
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(fact: Callable[[], bool], act: Callable[[], object] = lambda: None) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not fact():
            act()
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(transport_module, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(snapshot_sender, "PROGRESS_SECONDS", 0.5)
    monkeypatch.setattr(transport_module, "REFUSED_SECONDS", 0.1)


def heartbeat(round: int = 0) -> Heartbeat:
    return Heartbeat(sender=1, to=2, term=1, commit=0, round=round)


def append(size: int, index: int = 1) -> AppendRequest:
    entries = (Entry(index, 1, EntryKind.NORMAL, bytes(size)),)
    return AppendRequest(sender=1, to=2, term=1, previous_index=index - 1, previous_term=1, entries=entries, commit=0)


def snapshot(pieces: int) -> InstallSnapshot:
    meta = SnapshotMeta(index=pieces, term=1, membership=Membership.single("node-1", ""))
    return InstallSnapshot(sender=1, to=2, term=1, snapshot=meta)


async def test_messages_arrive_in_their_order_on_one_stream(tmp_path: Path) -> None:
    other = Other()
    async with serving(other) as address, running(Leader(address, tmp_path)) as transport:
        for index in range(1, 200):
            transport.send(append(1000, index))

        await until(lambda: len(other.messages) == 199)

        assert [message.append_request.previous_index for message in other.messages] == list(range(199))
        assert other.streams == 1


async def test_who_accepts_connections_and_never_answers_is_unreachable(tmp_path: Path) -> None:
    async with wire("127.0.0.1:1") as cable:
        cable.swallow()
        leader = Leader(cable.address, tmp_path)
        async with running(leader) as transport:
            await until(lambda: leader.times_unreachable() >= 2, lambda: transport.send(heartbeat()))

        assert cable.connections >= 2


async def test_who_stops_reading_is_unreachable_and_costs_no_more_than_the_queue(tmp_path: Path) -> None:
    other = Other()
    other.is_deaf = True
    async with serving(other) as address:
        leader = Leader(address, tmp_path)
        async with running(leader) as transport:
            most = 0

            def flood() -> None:
                nonlocal most
                for _ in range(5):
                    transport.send(append(MEBIBYTE))
                most = max(most, transport._peers[2]._outbox.bytes)

            await until(lambda: leader.times_unreachable() >= 2 and other.streams >= 2, flood)

            assert most <= MAX_BYTES
        other.released.set()


async def test_nobody_there_costs_no_more_than_the_queue_and_is_found_when_he_comes(tmp_path: Path) -> None:
    leader = Leader("127.0.0.1:1", tmp_path)
    async with running(leader) as transport:
        for _ in range(3):
            for _ in range(MAX_MESSAGES + 100):
                transport.send(heartbeat())
            transport.send(append(MAX_BYTES))
            transport.send(append(MAX_BYTES))
            outbox = transport._peers[2]._outbox
            assert len(outbox) <= MAX_MESSAGES
            assert outbox.bytes <= MAX_BYTES
            leader.told.clear()
            await until(lambda: leader.times_unreachable() > 0)

        other = Other()
        async with serving(other) as address:
            leader.move(address)
            await until(lambda: bool(other.messages), lambda: transport.send(heartbeat()))


async def test_who_moved_gets_the_next_message_at_the_new_address(tmp_path: Path) -> None:
    one, other = Other(), Other()
    async with serving(one) as before, serving(other) as after:
        leader = Leader(before, tmp_path)
        async with running(leader) as transport:
            await until(lambda: bool(one.messages), lambda: transport.send(heartbeat()))

            leader.move(after)

            await until(lambda: bool(other.messages), lambda: transport.send(heartbeat()))


async def test_a_process_that_died_and_came_back_at_its_address_is_found_again(tmp_path: Path) -> None:
    other = Other()
    async with serving(other) as target, wire(target) as cable:
        leader = Leader(cable.address, tmp_path)
        async with running(leader) as transport:
            await until(lambda: bool(other.messages), lambda: transport.send(heartbeat()))

            cable.cut()
            await until(lambda: leader.times_unreachable() > 0, lambda: transport.send(heartbeat()))
            streams = other.streams

            await until(lambda: other.streams > streams, lambda: transport.send(heartbeat()))


async def test_a_connection_that_swallows_everything_is_given_up_and_made_anew(tmp_path: Path) -> None:
    # What managers' channels are opened with, ten times as fast.
    options = tuple((name, int(value) // 10) for name, value in WATCHED)
    other = Other()
    async with serving(other) as target, wire(target) as cable:
        leader = Leader(cable.address, tmp_path)
        async with running(leader, options) as transport:
            await until(lambda: bool(other.messages), lambda: transport.send(heartbeat()))
            before, streams = len(other.messages), other.streams

            cable.swallow()
            await until(lambda: leader.times_unreachable() > 0, lambda: transport.send(heartbeat()))
            cable.mend()

            await until(lambda: other.streams > streams, lambda: transport.send(heartbeat()))
            await until(lambda: len(other.messages) > before, lambda: transport.send(heartbeat()))


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED])
async def test_who_refuses_is_asked_seldom_and_said_so_once(
    tmp_path: Path, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    other = Other()
    other.refusal = (code, "member was removed")
    async with serving(other) as address:
        leader = Leader(address, tmp_path)
        async with running(leader) as transport:
            await until(lambda: other.streams >= 3, lambda: transport.send(heartbeat()))

            said = [record.getMessage() for record in caplog.records if "takes nothing" in record.getMessage()]
            assert said == [f"manager 2 at {address} takes nothing from this one: member was removed"]
            other.refusal = None
            await until(lambda: bool(other.messages), lambda: transport.send(heartbeat()))


async def test_who_was_removed_gets_nothing_more(tmp_path: Path) -> None:
    other = Other()
    async with serving(other) as address:
        leader = Leader(address, tmp_path)
        async with running(leader) as transport:
            await until(lambda: bool(other.messages), lambda: transport.send(heartbeat()))

            removed = leader.membership.after(Remove(2))
            assert isinstance(removed, Membership)
            leader.membership = removed
            transport.send(heartbeat())
            await until(lambda: leader.times_unreachable() > 0, lambda: transport.send(heartbeat()))
            before = len(other.messages)
            for _ in range(10):
                transport.send(heartbeat())
                await asyncio.sleep(0)

            assert len(other.messages) == before


# Snapshots


async def test_a_snapshot_is_sent_whole_and_its_fate_is_told(tmp_path: Path) -> None:
    other = Other()
    async with serving(other) as address:
        leader = Leader(address, tmp_path)
        async with running(leader) as transport:
            transport.send(snapshot(5))

            await until(lambda: SnapshotSent(2, True) in leader.told)

            kinds = [part.WhichOneof("part") for part in other.parts]
            assert kinds == ["header", *["piece"] * 5, "end"]
            assert (other.parts[0].first, other.parts[-1].end) == (0, 5)
            assert other.parts[0].transfer


async def test_a_snapshot_goes_on_from_the_piece_that_the_receiver_asks_for(tmp_path: Path) -> None:
    other = Other()
    other.held = 3
    async with serving(other) as address:
        leader = Leader(address, tmp_path)
        async with running(leader) as transport:
            transport.send(snapshot(5))

            await until(lambda: SnapshotSent(2, True) in leader.told)

            assert [part.piece for part in other.parts[1:-1]] == [b"3", b"4"]
            assert (other.parts[0].first, other.parts[-1].end) == (3, 5)


async def test_a_snapshot_that_makes_no_progress_is_given_up(tmp_path: Path) -> None:
    other = Other()
    other.is_deaf = True
    async with serving(other) as address:
        leader = Leader(address, tmp_path)
        async with running(leader) as transport:
            transport.send(snapshot(5))

            await until(lambda: SnapshotSent(2, False) in leader.told)

            assert other.parts == []


async def test_a_snapshot_for_who_is_not_there_is_told_to_be_lost(tmp_path: Path) -> None:
    leader = Leader("127.0.0.1:1", tmp_path)
    async with running(leader) as transport:
        transport.send(snapshot(5))

        await until(lambda: SnapshotSent(2, False) in leader.told)


async def test_of_two_snapshots_only_the_newer_ones_fate_is_told(tmp_path: Path) -> None:
    other = Other()
    other.is_deaf = True
    async with serving(other) as address:
        leader = Leader(address, tmp_path)
        async with running(leader) as transport:
            transport.send(snapshot(5))
            await until(lambda: 2 in transport._peers and transport._peers[2]._snapshot is not None)

            other.is_deaf = False
            transport.send(snapshot(6))
            await until(lambda: SnapshotSent(2, True) in leader.told)

            assert [event for event in leader.told if isinstance(event, SnapshotSent)] == [SnapshotSent(2, True)]


async def test_a_snapshot_that_is_gone_is_told_to_be_lost(tmp_path: Path) -> None:
    other = Other()
    async with serving(other) as address:
        leader = Leader(address, tmp_path)

        async def gone(snapshot: SnapshotMeta) -> SnapshotReader:
            raise FileNotFoundError(2, "No such file or directory")

        opened: Callable[[SnapshotMeta], Awaitable[SnapshotReader]] = gone
        leader.open_snapshot = opened  # type: ignore[method-assign,assignment]
        async with running(leader) as transport:
            transport.send(snapshot(5))

            await until(lambda: SnapshotSent(2, False) in leader.told)


async def test_it_ends_when_it_is_cancelled_in_the_very_moment_that_a_member_is_new(tmp_path: Path) -> None:
    leader = Leader("127.0.0.1:1", tmp_path)
    transport = Transport(grpc.aio.insecure_channel)
    run = asyncio.create_task(transport.run(leader))
    await asyncio.sleep(0.01)

    transport.send(heartbeat())
    await asyncio.sleep(0)
    run.cancel()

    done, _ = await asyncio.wait({run}, timeout=WAIT_SECONDS)
    assert done and run.cancelled()


class Slow(grpc.aio.StreamUnaryClientInterceptor):
    """An interceptor of a channel that takes its time."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        self.is_asked.set()
        await asyncio.Event().wait()


async def test_it_ends_when_it_is_cancelled_while_an_interceptor_is_at_work(tmp_path: Path) -> None:
    slow = Slow()
    async with serving(Other()) as address:
        transport = Transport(lambda address: grpc.aio.insecure_channel(address, interceptors=[slow]))
        run = asyncio.create_task(transport.run(Leader(address, tmp_path)))
        transport.send(heartbeat())
        await slow.is_asked.wait()

        run.cancel()

        done, _ = await asyncio.wait({run}, timeout=WAIT_SECONDS)
        assert done and run.cancelled()
