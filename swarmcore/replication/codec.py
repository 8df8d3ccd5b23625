"""Raft messages on the wire: `swarmcore.raft.messages` as `swarmcore.v1.RaftMessage`, and back."""

from __future__ import annotations

from swarmcore.api import raft_pb2 as pb
from swarmcore.errors import InvalidArgumentError
from swarmcore.raft.membership import Membership
from swarmcore.raft.messages import (
    AppendReply,
    AppendRequest,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    ReadReply,
    ReadRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from swarmcore.raft.types import Entry, EntryKind, SnapshotMeta


def encode(message: Message) -> pb.RaftMessage:
    """One message for the wire."""
    out = pb.RaftMessage(sender=message.sender, to=message.to, term=message.term)
    match message:
        case VoteRequest():
            out.vote_request.last_index = message.last_index
            out.vote_request.last_term = message.last_term
            out.vote_request.is_pre = message.is_pre
            out.vote_request.is_transfer = message.is_transfer
        case VoteReply():
            out.vote_reply.SetInParent()
            out.vote_reply.is_granted = message.is_granted
            out.vote_reply.is_pre = message.is_pre
        case AppendRequest():
            request = out.append_request
            request.SetInParent()
            request.previous_index = message.previous_index
            request.previous_term = message.previous_term
            request.commit = message.commit
            for entry in message.entries:
                request.entries.add(index=entry.index, term=entry.term, kind=int(entry.kind), data=entry.data)
        case AppendReply():
            out.append_reply.SetInParent()
            out.append_reply.is_accepted = message.is_accepted
            out.append_reply.index = message.index
            out.append_reply.hint_index = message.hint_index
            out.append_reply.hint_term = message.hint_term
        case Heartbeat():
            out.heartbeat.SetInParent()
            out.heartbeat.commit = message.commit
            out.heartbeat.round = message.round
        case HeartbeatReply():
            out.heartbeat_reply.SetInParent()
            out.heartbeat_reply.round = message.round
        case InstallSnapshot():
            out.install_snapshot.index = message.snapshot.index
            out.install_snapshot.term = message.snapshot.term
            out.install_snapshot.membership = message.snapshot.membership.encode()
        case TimeoutNow():
            out.timeout_now.SetInParent()
        case ReadRequest():
            out.read_request.SetInParent()
            out.read_request.read = message.read
        case ReadReply():
            out.read_reply.SetInParent()
            out.read_reply.read = message.read
            out.read_reply.index = message.index
    return out


def decode(message: pb.RaftMessage) -> Message:
    """One message from the wire; raises InvalidArgumentError for what no manager of this version sends."""
    sender, to, term = message.sender, message.to, message.term
    match message.WhichOneof("body"):
        case "vote_request":
            ask = message.vote_request
            return VoteRequest(
                sender=sender,
                to=to,
                term=term,
                last_index=ask.last_index,
                last_term=ask.last_term,
                is_pre=ask.is_pre,
                is_transfer=ask.is_transfer,
            )
        case "vote_reply":
            vote = message.vote_reply
            return VoteReply(sender=sender, to=to, term=term, is_granted=vote.is_granted, is_pre=vote.is_pre)
        case "append_request":
            request = message.append_request
            return AppendRequest(
                sender=sender,
                to=to,
                term=term,
                previous_index=request.previous_index,
                previous_term=request.previous_term,
                entries=_entries(request),
                commit=request.commit,
            )
        case "append_reply":
            reply = message.append_reply
            return AppendReply(
                sender=sender,
                to=to,
                term=term,
                is_accepted=reply.is_accepted,
                index=reply.index,
                hint_index=reply.hint_index,
                hint_term=reply.hint_term,
            )
        case "heartbeat":
            beat = message.heartbeat
            return Heartbeat(sender=sender, to=to, term=term, commit=beat.commit, round=beat.round)
        case "heartbeat_reply":
            return HeartbeatReply(sender=sender, to=to, term=term, round=message.heartbeat_reply.round)
        case "install_snapshot":
            return InstallSnapshot(sender=sender, to=to, term=term, snapshot=_snapshot(message.install_snapshot))
        case "timeout_now":
            return TimeoutNow(sender=sender, to=to, term=term)
        case "read_request":
            return ReadRequest(sender=sender, to=to, term=term, read=message.read_request.read)
        case "read_reply":
            read = message.read_reply
            return ReadReply(sender=sender, to=to, term=term, read=read.read, index=read.index)
        case _:
            raise InvalidArgumentError("the raft message has no body that this version knows: update this manager")


def _entries(request: pb.RaftAppendRequest) -> tuple[Entry, ...]:
    entries = []
    for number, entry in enumerate(request.entries, request.previous_index + 1):
        if entry.index != number or entry.kind not in (EntryKind.NORMAL, EntryKind.MEMBERSHIP):
            raise InvalidArgumentError(f"entry {entry.index} of the raft message is out of order or of an unknown kind")
        entries.append(Entry(entry.index, entry.term, EntryKind(entry.kind), entry.data))
    return tuple(entries)


def _snapshot(snapshot: pb.RaftInstallSnapshot) -> SnapshotMeta:
    try:
        membership = Membership.decode(snapshot.membership)
    except ValueError as error:
        raise InvalidArgumentError(f"the membership of the snapshot can't be read: {error}") from None
    return SnapshotMeta(index=snapshot.index, term=snapshot.term, membership=membership)
