"""What waits for one member is bounded, whatever the machine wants to send."""

from __future__ import annotations

import asyncio

import pytest

from swarmcore.raft.membership import Membership
from swarmcore.raft.messages import AppendRequest, Heartbeat, InstallSnapshot, Message
from swarmcore.raft.types import Entry, EntryKind, SnapshotMeta
from swarmcore.replication.outbox import MAX_BYTES, MAX_MESSAGES, MESSAGE_BYTES, Outbox

SNAPSHOT = InstallSnapshot(
    sender=1, to=2, term=1, snapshot=SnapshotMeta(index=7, term=1, membership=Membership.single("node-1", ""))
)


def heartbeat(round: int = 0) -> Heartbeat:
    return Heartbeat(sender=1, to=2, term=1, commit=0, round=round)


def append(size: int, index: int = 1) -> AppendRequest:
    entries = (Entry(index, 1, EntryKind.NORMAL, b"x" * size),)
    return AppendRequest(sender=1, to=2, term=1, previous_index=index - 1, previous_term=1, entries=entries, commit=0)


def test_messages_and_bytes_are_bounded() -> None:
    outbox = Outbox()

    taken = sum(outbox.put(heartbeat()) for _ in range(MAX_MESSAGES * 2))
    assert taken == MAX_MESSAGES
    assert not outbox.clear()

    taken = sum(outbox.put(append(1024 * 1024)) for _ in range(100))
    assert taken == MAX_BYTES // (1024 * 1024)
    assert outbox.bytes == MAX_BYTES


def test_one_entry_goes_however_large_it_is() -> None:
    outbox = Outbox()

    assert outbox.put(append(MAX_BYTES * 2))
    assert not outbox.put(append(1))
    assert outbox.put(heartbeat())


def test_heartbeats_overtake_entries_and_keep_their_order() -> None:
    outbox = Outbox()
    messages: list[Message] = [append(10, 1), heartbeat(1), append(10, 2), heartbeat(2)]
    for message in messages:
        outbox.put(message)

    taken = list(outbox.take(1000))

    assert taken == [messages[1], messages[3], messages[0], messages[2]]
    assert (len(outbox), outbox.bytes) == (0, 0)


def test_a_batch_ends_when_it_has_its_size() -> None:
    outbox = Outbox()
    for index in range(1, 6):
        outbox.put(append(100, index))

    first = list(outbox.take(2 * (100 + MESSAGE_BYTES)))

    assert [message.entries[0].index for message in first if isinstance(message, AppendRequest)] == [1, 2]
    assert outbox.bytes == 300


def test_a_snapshot_is_never_lost_in_silence() -> None:
    outbox = Outbox()
    for _ in range(MAX_MESSAGES):
        outbox.put(heartbeat())

    assert outbox.put(SNAPSHOT)
    assert outbox.clear()
    assert not outbox.clear()


async def test_who_waits_is_woken_by_the_first_message() -> None:
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()

    outbox.put(heartbeat())

    await asyncio.wait_for(waiting, 5)


def news() -> AppendRequest:
    return AppendRequest(sender=1, to=2, term=1, previous_index=1, previous_term=1, entries=(), commit=1)


async def test_word_of_a_commit_goes_along_with_entries_that_follow_at_once() -> None:
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.wait())
    outbox.put(news())
    await asyncio.sleep(0)
    assert not waiting.done()

    outbox.put(append(10, 2))

    await asyncio.wait_for(waiting, 5)
    assert len(list(outbox.take(1000))) == 2


async def test_word_of_a_commit_goes_alone_where_nothing_follows() -> None:
    outbox = Outbox()

    outbox.put(news())

    await asyncio.wait_for(outbox.wait(), 5)
    assert len(list(outbox.take(1000))) == 1


async def test_who_took_everything_waits_again() -> None:
    outbox = Outbox()
    outbox.put(news())
    outbox.put(heartbeat())
    list(outbox.take(1000))

    waiting = asyncio.create_task(outbox.wait())
    await asyncio.sleep(0)

    assert not waiting.done()
    waiting.cancel()


@pytest.mark.parametrize("size", [0, 1, 10])
def test_taking_and_putting_leave_the_count_right(size: int) -> None:
    outbox = Outbox()
    for index in range(1, 50):
        outbox.put(append(size, index))
        if index % 3 == 0:
            list(outbox.take(1))

    assert outbox.bytes == size * len(outbox)
