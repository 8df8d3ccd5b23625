"""What is agreed: logs that match, and what a majority holds.

One rule of the paper or the thesis, one test.
"""

from __future__ import annotations

import pytest

from swarmcore.raft.effects import Persist, Send
from swarmcore.raft.events import (
    Proposed,
    Received,
    Ticked,
)
from swarmcore.raft.messages import (
    AppendReply,
)
from swarmcore.raft.types import NO_ONE, Entry, EntryKind, HardState
from swarmcore.testing.raft_group import Group
from swarmcore.testing.raft_member import append, member, only, sent

# Replication (paper §5.3)


def test_an_entry_is_committed_once_a_majority_has_it() -> None:
    group = Group(1, 2, 3, 4, 5)
    group.elect(1)
    group.isolate(3, 4, 5)
    group.propose(1, "a")
    assert group.data(1) == []
    group.heal()

    group.tick(times=2)

    assert [group.data(id) for id in group.members] == [["a"]] * 5


def test_a_follower_acknowledges_only_what_is_on_its_disk() -> None:
    raft = member()

    effects = raft.step(Received(append(2, (1, 1), 2, 2)))

    persist, reply = only(Persist, effects), only(Send, effects)
    assert [entry.index for entry in persist.entries] == [2, 3]
    assert reply.after == persist.number


def test_an_entry_that_came_twice_is_acknowledged_only_once_it_is_on_disk() -> None:
    raft = member()
    persist = only(Persist, raft.step(Received(append(2, (1, 1), 2))))

    effects = raft.step(Received(append(2, (1, 1), 2)))

    (reply,) = effects
    assert isinstance(reply, Send) and reply.after == persist.number


def test_a_leader_counts_its_own_entry_only_once_it_is_on_disk() -> None:
    group = Group(1)
    group.members[1].is_disk_slow = True
    group.propose(1, "a")
    assert group.data(1) == []

    group.write(1)

    assert group.data(1) == ["a"]


def test_a_leader_sends_entries_before_its_own_disk_has_them() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.members[1].is_disk_slow = True

    group.propose(1, "a")

    assert group[2].log.last_index == group[3].log.last_index == group[1].log.last_index
    assert group[1].commit == group[1].log.last_index
    assert group.data(1) == []
    group.write(1)
    assert group.data(1) == ["a"]


def test_heartbeats_go_out_while_the_disk_is_slow() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.members[1].is_disk_slow = True
    group.step(1, Proposed(b"a"))

    group.tick(times=100)

    assert group.leader == 1
    assert group[1].term == group[2].term == 2


def test_entries_are_refused_where_the_log_does_not_match() -> None:
    raft = member(1, 1)

    (reply,) = sent(raft.step(Received(append(2, (3, 2), 2))))
    (other,) = sent(raft.step(Received(append(2, (7, 2), 2))))

    assert isinstance(reply, AppendReply) and not reply.is_accepted
    assert isinstance(other, AppendReply) and not other.is_accepted
    assert raft.log.last_index == 3


def test_entries_that_conflict_are_replaced_with_all_that_follow() -> None:
    raft = member(1, 2, 2)

    raft.step(Received(append(3, (2, 1), 3)))

    assert [raft.log.term_at(index) for index in range(1, 5)] == [1, 1, 3, None]


def test_an_old_message_takes_nothing_away_that_matches() -> None:
    raft = member(1, 2, 2)

    raft.step(Received(append(3, (1, 1), 1)))

    assert raft.log.last_index == 4


def test_a_follower_commits_no_further_than_what_the_message_confirms() -> None:
    raft = member(1, 1, 1)

    raft.step(Received(append(2, (1, 1), 1, commit=4)))

    assert raft.commit == 2


FIGURE_7 = {
    "a": [1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1],
    "c": [1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 4, 4, 4, 4],
    "f": [1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("terms", FIGURE_7.values(), ids=FIGURE_7)
def test_any_log_is_brought_to_the_leaders(terms: list[int]) -> None:
    leader_terms = [1, 1, 4, 4, 5, 5, 6, 6, 6]
    group = Group(1, 2, 3)
    for id, of in ((1, leader_terms), (2, terms), (3, leader_terms)):
        storage = group.crash(id)
        storage.entries += [Entry(at, term, EntryKind.NORMAL, b"%d" % term) for at, term in enumerate(of, 2)]
        storage.hard_state = HardState(7, NO_ONE, 1)
        group.start(id, storage)
    group.isolate(2)
    group.elect(1)
    group.heal()

    group.tick(times=15)

    leader = group[group.leader or 1].log
    for id in group.members:
        log = group[id].log
        assert log.between(2, log.last_index) == leader.between(2, leader.last_index)


def test_whole_terms_are_skipped_when_logs_differ() -> None:
    group = Group(1, 2, 3)
    for id, terms in ((1, [2] + [5] * 200), (2, [2] + [3] * 200), (3, [2] + [5] * 200)):
        storage = group.crash(id)
        storage.entries += [Entry(at, term, EntryKind.NORMAL, b"%d" % term) for at, term in enumerate(terms, 2)]
        storage.hard_state = HardState(6, NO_ONE, 1)
        group.start(id, storage)
    group.isolate(2)
    group.elect(1)
    group.heal()
    refusals = 0
    group.step(1, Ticked())
    while group.network:
        message = group.network[0]
        refusals += isinstance(message, AppendReply) and not message.is_accepted
        group.deliver_one()

    assert group[2].log.last_index == group[1].log.last_index
    assert refusals <= 3


# Safety (paper §5.4.2)


def test_an_entry_of_an_earlier_term_is_committed_only_along_with_one_of_the_leaders() -> None:
    group = Group(1, 2, 3)
    for id, terms in ((1, [2]), (2, [2]), (3, [])):
        storage = group.crash(id)
        storage.entries += [Entry(2, term, EntryKind.NORMAL, b"old") for term in terms]
        storage.hard_state = HardState(3, NO_ONE, 1)
        group.start(id, storage)
    group.isolate(3)
    group.members[2].is_disk_slow = True
    for _ in range(30):
        group.step(1, Ticked())
        group.write(2)
        while group.network and not group[1].is_leader:
            group.deliver_one()
        if group[1].is_leader:
            break
    # Entry 2 is on a majority already, but of an earlier term: that commits nothing.
    assert group[1].is_leader and group[1].commit == 1

    group.members[2].is_disk_slow = False
    group.write(2)
    group.tick(times=3)

    assert group.data(1) == ["old"]


def test_a_new_leader_begins_with_an_empty_entry() -> None:
    group = Group(1, 2, 3)
    group.elect(2)

    last = group[2].log.between(2, 2)[0]
    assert (last.term, last.data) == (2, b"")
    assert group[2].commit == 2


def test_a_leader_never_replaces_its_own_entries() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.propose(1, "a")
    before = group[1].log.between(1, group[1].log.last_index)

    group.step(1, Received(append(group[1].term, (1, 1), 9, sender=2)))

    assert group[1].log.between(1, group[1].log.last_index) == before
