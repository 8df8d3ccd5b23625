"""Raft messages survive the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.api import raft_pb2 as pb
from swarmcore.errors import InvalidArgumentError
from swarmcore.raft import messages
from swarmcore.raft.membership import Membership
from swarmcore.raft.messages import Message
from swarmcore.raft.types import Entry, EntryKind, SnapshotMeta
from swarmcore.replication.codec import decode, encode

numbers = st.integers(0, 2**64 - 1)
envelope = {"sender": numbers, "to": numbers, "term": numbers}
kinds = st.sampled_from(EntryKind)


@st.composite
def appends(draw: st.DrawFn) -> Message:
    previous = draw(st.integers(0, 2**62))
    bodies = draw(st.lists(st.tuples(numbers, kinds, st.binary(max_size=64)), max_size=5))
    entries = tuple(Entry(previous + 1 + n, term, kind, data) for n, (term, kind, data) in enumerate(bodies))
    return messages.AppendRequest(
        sender=draw(numbers),
        to=draw(numbers),
        term=draw(numbers),
        previous_index=previous,
        previous_term=draw(numbers),
        entries=entries,
        commit=draw(numbers),
    )


snapshots = st.builds(
    lambda index, term, node: SnapshotMeta(index=index, term=term, membership=Membership.single(node, "h:1")),
    numbers,
    numbers,
    st.text(max_size=8),
)
any_message = st.one_of(
    appends(),
    st.builds(messages.InstallSnapshot, snapshot=snapshots, **envelope),
    st.builds(
        messages.VoteRequest,
        last_index=numbers,
        last_term=numbers,
        is_pre=st.booleans(),
        is_transfer=st.booleans(),
        **envelope,
    ),
    st.builds(messages.VoteReply, is_granted=st.booleans(), is_pre=st.booleans(), **envelope),
    st.builds(
        messages.AppendReply,
        is_accepted=st.booleans(),
        index=numbers,
        hint_index=numbers,
        hint_term=numbers,
        **envelope,
    ),
    st.builds(messages.Heartbeat, commit=numbers, round=numbers, **envelope),
    st.builds(messages.HeartbeatReply, round=numbers, **envelope),
    st.builds(messages.TimeoutNow, **envelope),
    st.builds(messages.ReadRequest, read=numbers, **envelope),
    st.builds(messages.ReadReply, read=numbers, index=numbers, **envelope),
)


@given(any_message)
def test_a_message_is_the_same_after_the_wire(message: Message) -> None:
    data = encode(message).SerializeToString()

    assert decode(pb.RaftMessage.FromString(data)) == message


@pytest.mark.parametrize(
    "message",
    [
        pb.RaftMessage(sender=1),
        pb.RaftMessage(append_request=pb.RaftAppendRequest(entries=[pb.RaftEntry(index=7)])),
        pb.RaftMessage(append_request=pb.RaftAppendRequest(entries=[pb.RaftEntry(index=1, kind=9)])),
        pb.RaftMessage(install_snapshot=pb.RaftInstallSnapshot(membership=b"{")),
    ],
)
def test_what_no_manager_sends_is_refused(message: pb.RaftMessage) -> None:
    with pytest.raises(InvalidArgumentError):
        decode(message)
