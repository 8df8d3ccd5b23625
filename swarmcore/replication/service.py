"""The other end of the transport: what managers send to this one, checked and given to the replica."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.caller import Caller, current_caller
from swarmcore.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    NotLeaderError,
    PermissionDeniedError,
)
from swarmcore.raft.events import Received
from swarmcore.raft.membership import AddLearner, Member, Move, Remove
from swarmcore.raft.messages import InstallSnapshot, Message
from swarmcore.replication.codec import decode
from swarmcore.replication.groups import ADDRESS, OLD_GROUP, check_group

if TYPE_CHECKING:
    from swarmcore.replication.replica import Replica

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

REMOVED = "member was removed"
MAX_ADDRESS = 262
MAX_HEARD = 256
LEAVE_SECONDS = 0.1
PART_SECONDS = 30.0


class RaftService:
    """Satisfies the generated RaftServicer. Registered on the one port; callers are managers of this cluster."""

    def __init__(
        self,
        replica: Replica,
        reachable: Callable[[str, Caller], str],
        is_signed: Callable[[pb.RaftReplacedNotice], bool] = lambda notice: False,
    ) -> None:
        """`reachable` turns the address that a joining manager names into one that others reach it at.

        `is_signed`: whether a notice comes from who holds the root's key.
        """
        self._replica = replica
        self._is_signed = is_signed
        self._reachable = reachable

    async def Deliver(self, batches: AsyncIterator[pb.RaftBatch], context: Context) -> pb.RaftDelivered:
        """Messages of one other manager, for as long as both live."""
        caller = current_caller()
        self._check_group(context)
        address = self._named_address(context, caller)
        async for batch in batches:
            for message in batch.messages:
                checked = self._checked(decode(message), caller)
                if address:
                    self._note_address(checked.sender, address)
                    address = ""
                self._replica.tell(Received(checked))
        return pb.RaftDelivered()

    def _note_address(self, sender: int, address: str) -> None:
        heard = self._replica.heard_at
        if sender in heard or len(heard) < MAX_HEARD:
            heard[sender] = address

    def _named_address(self, context: Context, caller: Caller) -> str:
        """Where the caller says that it is; empty where it says nothing that can be used."""
        named = {key: str(value) for key, value in context.invocation_metadata() or ()}.get(ADDRESS, "")
        if not named or len(named) > MAX_ADDRESS:
            return ""
        try:
            return self._reachable(named, caller)
        except InvalidArgumentError:
            return ""

    async def Install(self, parts: AsyncIterator[pb.RaftSnapshotPart], context: Context) -> pb.RaftInstalled:
        """A snapshot of the leader's."""
        self._check_group(context)
        first = await _next(parts)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidArgumentError("the snapshot does not begin with its header")
        message = self._announced(first.header)
        transfer = _transfer(first.transfer, message)
        await self._replica.install(message, _pieces(parts, first.first), transfer=transfer, first=first.first)
        return pb.RaftInstalled()

    async def Received(self, request: pb.RaftReceivedRequest, context: Context) -> pb.RaftReceivedResponse:
        """How much of a snapshot is here from a stream that broke."""
        self._check_group(context)
        message = self._announced(request.header)
        return pb.RaftReceivedResponse(
            pieces=await self._replica.received(message, _transfer(request.transfer, message))
        )

    def _announced(self, header: pb.RaftMessage) -> InstallSnapshot:
        message = self._checked(decode(header), current_caller())
        if not isinstance(message, InstallSnapshot):
            raise InvalidArgumentError("the snapshot's header announces none")
        return message

    async def Replaced(self, request: pb.RaftReplacedNotice, context: object) -> pb.RaftReplacedAnswer:
        """Another group took the place of this one, as the holder of the root's key says."""
        if request.old_group != self._replica.group or not self._is_signed(request):
            return pb.RaftReplacedAnswer()
        # After the answer.
        asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._replica.replaced, f"{OLD_GROUP} {request.addr}")
        return pb.RaftReplacedAnswer(is_leaving=True)

    async def Join(self, request: pb.RaftJoinRequest, context: object) -> pb.RaftJoinResponse:
        """Let the calling manager in as a learner, or note its new address where it still holds its log.

        Who comes without a log gets a new id: under its old one it could vote away what it had agreed to.
        """
        caller = current_caller()
        if not request.addr or len(request.addr) > MAX_ADDRESS:
            raise InvalidArgumentError("addr: must be host:port, and at most 262 characters")
        address = self._reachable(request.addr, caller)
        replica = self._replica
        if not replica.term:
            raise NotLeaderError("this manager is not the leader")
        known = _member_of(replica, caller.node_id)
        if known is not None and known.id == replica.raft_id:
            raise FailedPreconditionError(f"node {caller.node_id} leads, and can't join itself: one node id runs twice")
        if known is not None and known.id != request.raft_id:
            await replica.change_membership(Remove(known.id))
            known = None
        if known is None:
            await replica.change_membership(AddLearner(caller.node_id, address))
        elif known.address != address:
            await replica.change_membership(Move(known.id, address))
        member = _member_of(replica, caller.node_id)
        if member is None:
            raise AbortedError("the membership changed meanwhile: join again")
        return pb.RaftJoinResponse(
            raft_id=member.id,
            group=replica.group,
            members=[
                pb.RaftMemberInfo(raft_id=each.id, node_id=each.node_id, addr=each.address, is_voter=each.is_voter)
                for each in replica.membership.members.values()
            ],
        )

    async def Leave(self, request: pb.RaftLeaveRequest, context: object) -> pb.RaftLeaveResponse:
        """Take the calling manager out of the group."""
        member = _member_of(self._replica, current_caller().node_id)
        if member is None:
            raise NotFoundError("this node is no member")
        await self._replica.change_membership(Remove(member.id))
        return pb.RaftLeaveResponse()

    def _check_group(self, context: Context) -> None:
        metadata = [(key, str(value)) for key, value in context.invocation_metadata() or ()]
        check_group(metadata, self._replica.membership, self._replica.group)

    def _checked(self, message: Message, caller: Caller) -> Message:
        """A message is believed only from the node that the membership names for its sender."""
        membership = self._replica.membership
        if membership.was_removed(message.sender):
            raise NotFoundError(REMOVED)
        member = membership.members.get(message.sender)
        # Who has just joined has no membership yet and learns it from its first message.
        if member is not None and member.node_id != caller.node_id:
            raise PermissionDeniedError(f"node {caller.node_id} is not raft member {message.sender}")
        if message.to != self._replica.raft_id:
            raise InvalidArgumentError(f"raft member {message.to} is not here: this is {self._replica.raft_id}")
        return message


def _member_of(replica: Replica, node_id: str) -> Member | None:
    return next((each for each in replica.membership.members.values() if each.node_id == node_id), None)


async def _next(parts: AsyncIterator[pb.RaftSnapshotPart]) -> pb.RaftSnapshotPart | None:
    try:
        async with asyncio.timeout(PART_SECONDS):
            return await anext(parts, None)
    except TimeoutError:
        raise AbortedError(f"no part of the snapshot came for {PART_SECONDS:g} s: send it again") from None


def _transfer(file: bytes, message: InstallSnapshot) -> str:
    """A name for one file that is sent: short, and of letters and digits, whatever the sender says."""
    place = f"{message.snapshot.index}/{message.snapshot.term}/".encode()
    return hashlib.blake2b(place + file, digest_size=8).hexdigest()


async def _pieces(parts: AsyncIterator[pb.RaftSnapshotPart], first: int) -> AsyncIterator[bytes]:
    count = first
    while (part := await _next(parts)) is not None:
        match part.WhichOneof("part"):
            case "piece":
                count += 1
                yield part.piece
            case "end" if part.end == count:
                return
            case _:
                break
    raise AbortedError("the snapshot ended in its middle: send it again")
