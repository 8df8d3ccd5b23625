"""Raft's messages between managers: one long-lived stream to each member, a bounded queue before it, and snapshots.

Nothing here is reliable, and nothing needs to be: Raft sends again what it misses. What can't be sent is dropped and
said to the machine, which then slows down for that member.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.channels import connected
from swarmcore.api.raft_pb2_grpc import RaftStub
from swarmcore.raft.events import Event, MemberGone, MemberUnreachable, SnapshotSent
from swarmcore.raft.membership import Member, Membership
from swarmcore.raft.messages import InstallSnapshot, Message
from swarmcore.raft.types import SnapshotMeta
from swarmcore.replication.codec import encode
from swarmcore.replication.groups import ADDRESS, OLD_GROUP, group_metadata
from swarmcore.replication.outbox import Outbox
from swarmcore.replication.snapshot_file import SnapshotReader
from swarmcore.replication.snapshot_sender import send_snapshot

log = logging.getLogger("swarmcore.replication")

BATCH_BYTES = 512 * 1024
CONNECT_SECONDS = 2.0
WRITE_SECONDS = 5.0
REFUSALS = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
)
REFUSED_SECONDS = 5.0
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5)
LOOKS_FOR_A_LEADER = (0.0, 0.02, 0.05, 0.1)
"""Pauses before each look at whether the leader's process is still there, once its connection broke."""
LOOK_SECONDS = 0.3


class Group(Protocol):
    """What the transport needs of the replica."""

    @property
    def raft_id(self) -> int: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def leader(self) -> Member | None: ...
    @property
    def group(self) -> str: ...
    def replaced(self, details: str) -> None:
        """Another group took this one's place, as a manager of that one says."""

    def tell(self, event: Event) -> object: ...
    async def open_snapshot(self, snapshot: SnapshotMeta) -> SnapshotReader: ...

    @property
    def address(self) -> str:
        """Where this manager is, by its own word."""
        ...

    @property
    def heard_at(self) -> Mapping[int, str]:
        """Where members say themselves that they are, on the streams that come from them."""
        ...


class Transport:
    """All outgoing connections of one manager. `send` is what the replica is opened with; then `run`."""

    def __init__(self, dial: Callable[[str], grpc.aio.Channel], introduced: Mapping[int, str] | None = None) -> None:
        """`dial` makes a channel with this manager's certificate to `host:port`; it connects to nothing yet.

        `introduced`: addresses by id, for a manager whose own log does not name the others yet.
        """
        self._dial = dial
        self._introduced = dict(introduced or {})
        self._group: Group | None = None
        self._peers: dict[int, _Peer] = {}
        self._changed = asyncio.Event()
        self.refusals = 0
        """How often another manager answered that it takes nothing from this one."""

    def send(self, message: Message) -> None:
        """Send a message some time soon, or lose it."""
        peer = self._peers.get(message.to)
        if peer is None:
            peer = self._peers[message.to] = _Peer(
                message.to, self._dial, self._introduced.get(message.to), self._on_refusal
            )
            self._changed.set()
        if not peer.put(message):
            self._tell_soon(MemberUnreachable(message.to))

    def _on_refusal(self) -> None:
        self.refusals += 1

    def _tell_soon(self, event: Event) -> None:
        # Called out of the machine's own step: what it is told now would come in its middle.
        if self._group is not None:
            asyncio.get_running_loop().call_soon(self._group.tell, event)

    async def run(self, group: Group) -> None:
        """Deliver until cancelled."""
        self._group = group
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                for id, peer in list(self._peers.items()):
                    if id in tasks and tasks[id].done():
                        log.error(
                            "the stream to manager %d ended, and begins again", id, exc_info=_error(tasks.pop(id))
                        )
                    if id not in tasks:
                        tasks[id] = asyncio.create_task(peer.run(group), name=f"raft member {id}")
                    elif group.membership.was_removed(id):
                        tasks.pop(id).cancel()
                        del self._peers[id]
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    # Removals are looked for now and then; new members are told at once.
                    async with asyncio.timeout(5.0):
                        await self._changed.wait()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            self._group = None


class _Peer:
    """One member: its queue and its streams."""

    def __init__(
        self,
        id: int,
        dial: Callable[[str], grpc.aio.Channel],
        introduced: str | None,
        refused: Callable[[], None],
    ) -> None:
        self._id = id
        self._refused = refused
        self._introduced = introduced
        self._dial = dial
        self._outbox = Outbox()
        self._snapshot: asyncio.Task[None] | None = None
        self._failures = 0
        self._is_refused = False
        """It said that this manager is none, or none any more; asking often changes nothing."""

    def put(self, message: Message) -> bool:
        """Queue a message; False when there are too many."""
        return self._outbox.put(message)

    async def run(self, group: Group) -> None:
        try:
            while True:
                await self._outbox.wait()
                addresses = self._addresses(group)
                if not addresses:
                    self._lose(group)
                    continue
                address = addresses[self._failures % len(addresses)]
                channel = self._dial(address)
                try:
                    await self._deliver(channel, address, group)
                    self._is_refused = False
                except (grpc.aio.AioRpcError, ConnectionError, TimeoutError, asyncio.InvalidStateError) as error:
                    if is_outlived(error):
                        group.replaced(str(error.details()))  # type: ignore[union-attr]
                    self._on_failure(address, error)
                finally:
                    await channel.close()
                self._lose(group)
                group.tell(MemberUnreachable(self._id))
                if self._leads(group) and await self._is_gone(address, group):
                    group.tell(MemberGone(self._id))
                await asyncio.sleep(self._pause())
        finally:
            if self._snapshot is not None:
                self._snapshot.cancel()
                await asyncio.gather(self._snapshot, return_exceptions=True)

    def _lose(self, group: Group) -> None:
        if self._outbox.clear():
            # Else the member would get nothing more: the machine waits for the fate of each snapshot.
            group.tell(SnapshotSent(self._id, False))

    def _addresses(self, group: Group) -> Sequence[str]:
        """Where the member may be, likeliest first; nowhere for one that was removed, or that nobody has told of.

        The log of this manager can lack the entry that says where the member moved to, and get it only from there.
        """
        if group.membership.was_removed(self._id):
            return ()
        member = group.membership.members.get(self._id)
        known = (member.address if member is not None else "", group.heard_at.get(self._id, ""), self._introduced or "")
        return list(dict.fromkeys(address for address in known if address))

    def _leads(self, group: Group) -> bool:
        return group.leader is not None and group.leader.id == self._id

    async def _is_gone(self, address: str, group: Group) -> bool:
        """Whether nobody listens at the leader's address: a host says so at once when a process has ended.

        A host that is off says nothing; then the silence has to last for an election timeout.
        """
        for pause in LOOKS_FOR_A_LEADER:
            await asyncio.sleep(pause)
            if not self._leads(group):
                return False
            host, _, port = address.rpartition(":")
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except ConnectionRefusedError:
                return True
            except (OSError, TimeoutError):
                return False
            writer.transport.abort()
        return False

    def _pause(self) -> float:
        if self._is_refused:
            return REFUSED_SECONDS
        return RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS)) - 1]

    def _on_failure(self, address: str, error: Exception) -> None:
        self._failures += 1
        is_answer = isinstance(error, grpc.aio.AioRpcError) and error.code() in REFUSALS
        if self._failures == 1 or (is_answer and not self._is_refused):
            reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else "it does not answer"
            words = "takes nothing from this one" if is_answer else "can't be reached"
            log.warning("manager %d at %s %s: %s", self._id, address, words, reason)
        if is_answer:
            self._refused()
        self._is_refused = is_answer

    async def _deliver(self, channel: grpc.aio.Channel, address: str, group: Group) -> None:
        """Write batches until the stream breaks or the member is at another address."""
        async with asyncio.timeout(CONNECT_SECONDS):
            await connected(channel)
        if self._failures and not self._is_refused:
            log.info("manager %d at %s is reached again", self._id, address)
        stub: Any = RaftStub(channel)
        call = stub.Deliver(metadata=(*group_metadata(group.membership, group.group), (ADDRESS, group.address)))
        ended = asyncio.create_task(_end_of(call), name=f"raft stream {self._id}")
        ended.add_done_callback(self._look_up)
        try:
            while True:
                await self._outbox.wait()
                if ended.done():
                    await ended
                    return
                if address not in self._addresses(group):
                    return
                batch = self._next_batch(channel, group)
                if batch.messages:
                    await _write(call, batch, ended)
                    if not self._is_refused:
                        self._failures = 0
        finally:
            ended.remove_done_callback(self._look_up)
            ended.cancel()
            call.cancel()

    def _look_up(self, ended: asyncio.Task[None]) -> None:
        self._outbox.ring()

    def _next_batch(self, channel: grpc.aio.Channel, group: Group) -> pb.RaftBatch:
        batch = pb.RaftBatch()
        for message in self._outbox.take(BATCH_BYTES):
            if isinstance(message, InstallSnapshot):
                self._start_snapshot(channel, group, message)
            else:
                batch.messages.append(encode(message))
        return batch

    # Snapshots

    def _start_snapshot(self, channel: grpc.aio.Channel, group: Group, message: InstallSnapshot) -> None:
        if self._snapshot is not None:
            self._snapshot.cancel()
        self._snapshot = asyncio.create_task(
            self._send_snapshot(channel, group, message), name=f"snapshot to {self._id}"
        )

    async def _send_snapshot(self, channel: grpc.aio.Channel, group: Group, message: InstallSnapshot) -> None:
        is_delivered = False
        try:
            reason = await send_snapshot(channel, group, message)
            is_delivered = not reason
            if reason:
                log.warning("the snapshot for manager %d could not be sent: %s", self._id, reason)
            else:
                log.info("snapshot of entry %d sent to manager %d", message.snapshot.index, self._id)
        finally:
            if self._snapshot is asyncio.current_task():
                # Who was replaced by a newer one must not speak for it.
                group.tell(SnapshotSent(self._id, is_delivered))


def is_outlived(error: Exception) -> bool:
    """Whether a manager of this cluster said that its group took the place of this one's."""
    if not isinstance(error, grpc.aio.AioRpcError) or error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
        return False
    return (error.details() or "").startswith(OLD_GROUP)


async def _write(call: Any, batch: pb.RaftBatch, ended: asyncio.Task[None]) -> None:
    """Write to a stream. Where it has ended, raises what ended it: a refusal must not pass for a broken connection."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await call.write(batch)
    except asyncio.InvalidStateError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # What gRPC makes of a cancellation where an interceptor is not done yet.
            raise asyncio.CancelledError from None
        await asyncio.wait([ended], timeout=WRITE_SECONDS)
        if ended.done() and not ended.cancelled():
            ended.result()
        raise


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


async def _end_of(call: Any) -> None:
    """The end of a stream on the other side's word. Raises AioRpcError."""
    await call
