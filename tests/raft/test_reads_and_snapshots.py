"""Reads that a majority confirms, and snapshots in the place of a log.

One rule of the paper or the thesis, one test.
"""

from __future__ import annotations

from swarmcore.raft.effects import Persist, Restore, ServeRead
from swarmcore.raft.events import (
    Persisted,
    ReadDemanded,
    Received,
    Started,
    Ticked,
)
from swarmcore.raft.membership import AddLearner
from swarmcore.raft.messages import (
    HeartbeatReply,
    InstallSnapshot,
)
from swarmcore.raft.types import SnapshotMeta
from swarmcore.testing.raft_group import Group
from swarmcore.testing.raft_member import member, only

# Reads (thesis §6.4)


def test_a_read_is_served_once_a_majority_confirms_the_leader() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.propose(1, "a")
    group.step(1, ReadDemanded(7))
    assert group.members[1].served == {}

    group.settle()

    assert group.members[1].served == {7: group[1].commit}


def test_a_leader_that_was_replaced_serves_no_read() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(1)
    group.tick([2, 3], 30)
    group.propose(group.leader or 0, "new")

    group.step(1, ReadDemanded(7))
    group.tick([1], 25)

    assert group.members[1].served == {}
    assert group.members[1].refused_reads == [7]


def test_an_answer_to_an_earlier_heartbeat_confirms_no_later_read() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.step(1, ReadDemanded(7))

    group.step(1, Received(HeartbeatReply(sender=2, to=1, term=group[1].term, round=0)))

    assert group.members[1].served == {}


def test_a_follower_reads_through_its_leader() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.propose(1, "a")

    group.step(3, ReadDemanded(7))
    group.settle()

    assert group.members[3].served == {7: group[1].commit}


def test_a_read_without_a_leader_is_refused() -> None:
    group = Group(1, 2, 3)

    group.step(2, ReadDemanded(7))

    assert group.members[2].refused_reads == [7]


def test_a_single_member_serves_reads_at_once() -> None:
    group = Group(1)

    group.step(1, ReadDemanded(7))

    assert group.members[1].served == {7: 2}


def test_a_read_before_the_first_commit_of_the_term_waits_for_it() -> None:
    fresh = member(group=(1,))
    effects = fresh.step(Started())
    assert fresh.step(ReadDemanded(7)) == []
    persist = only(Persist, effects)

    after = fresh.step(Persisted(persist.number))

    assert ServeRead(7, 2) in after


# Snapshots (paper §7)


def test_a_member_that_needs_what_is_gone_gets_a_snapshot() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)
    group.propose(1, *"abcdef")
    group.snapshot(1)
    group.heal()

    group.tick(times=3)
    group.propose(1, "g")

    assert group.data(3) == list("abcdefg")
    assert group.members[3].storage.snapshot.index == group[1].snapshot.index


def test_a_snapshot_that_was_lost_is_sent_again() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)
    group.propose(1, *"abcdef")
    group.snapshot(1)
    group.heal()
    group.step(1, Ticked())
    while not isinstance(group.network[0], InstallSnapshot):
        group.deliver_one()
    group.isolate(3)
    group.settle()
    group.heal()

    group.tick(times=3)

    assert group.data(3) == list("abcdef")


def test_a_snapshot_of_what_is_committed_already_changes_nothing() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.propose(1, "a", "b")
    old = SnapshotMeta(index=2, term=2, membership=group[1].membership)

    effects = group.step(2, Received(InstallSnapshot(sender=1, to=2, term=2, snapshot=old)))

    assert not [effect for effect in effects if isinstance(effect, Persist | Restore)]
    assert group.data(2) == ["a", "b"]


def test_a_snapshot_brings_the_membership() -> None:
    group = Group(1)
    group.propose(1, "a")
    group.change(1, AddLearner("node-2", ""))
    group.snapshot(1)
    group.join(2)

    group.tick(times=4)

    assert group[2].membership == group[1].membership
    assert group.data(2) == ["a"]


def test_a_member_restarts_from_its_snapshot_and_the_log_behind_it() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.propose(1, "a", "b")
    group.snapshot(2, keep=1)
    group.propose(1, "c")

    group.restart(2)
    group.tick(times=3)

    assert group.data(2) == ["a", "b", "c"]


def test_a_log_keeps_what_members_that_lag_behind_may_need() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)
    group.propose(1, *"abc")
    group.snapshot(1, keep=5)
    group.heal()

    group.tick(times=3)

    assert group.data(3) == list("abc")
    assert group.members[3].storage.snapshot.index == 0
