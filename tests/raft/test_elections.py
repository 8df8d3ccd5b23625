"""Who leads: terms, votes, and the care that nobody is disturbed.

One rule of the paper or the thesis, one test.
"""

from __future__ import annotations

import pytest

from swarmcore.raft.effects import Accept, Apply, Persist, Role, Send
from swarmcore.raft.events import (
    CampaignDemanded,
    MemberGone,
    Persisted,
    Proposed,
    Received,
    Started,
)
from swarmcore.raft.machine import TURN_TICKS
from swarmcore.raft.messages import (
    AppendReply,
    Heartbeat,
    VoteReply,
)
from swarmcore.raft.types import NO_ONE, HardState
from swarmcore.testing.raft_group import Group
from swarmcore.testing.raft_member import append, member, only, sent, vote_request

# Elections (paper §5.1, §5.2, §5.4.1)


def test_whoever_is_in_an_older_term_follows_the_newer_one() -> None:
    raft = member(term=2)

    raft.step(Received(Heartbeat(sender=3, to=1, term=5, commit=0)))

    assert (raft.term, raft.leader, raft.role.kind) == (5, 3, Role.FOLLOWER)


def test_a_leader_that_sees_a_newer_term_steps_down() -> None:
    group = Group(1, 2, 3)
    group.elect(1)

    group.step(1, Received(AppendReply(sender=2, to=1, term=9, is_accepted=False, index=0)))

    assert (group[1].role.kind, group[1].term) == (Role.FOLLOWER, 9)


def test_messages_of_an_older_term_change_nothing() -> None:
    raft = member(term=5)

    effects = raft.step(Received(append(4, (1, 1), 4, commit=2)))

    (reply,) = sent(effects)
    assert isinstance(reply, AppendReply)
    assert (reply.is_accepted, reply.term, raft.log.last_index, raft.leader) == (False, 5, 1, NO_ONE)


def test_one_vote_in_a_term() -> None:
    raft = member()

    replies = [sent(raft.step(Received(vote_request(2, 9, 1, sender=sender))))[0] for sender in (2, 3, 2)]

    assert [isinstance(reply, VoteReply) and reply.is_granted for reply in replies] == [True, False, True]


def test_a_leader_that_is_gone_is_replaced_without_waiting_for_silence() -> None:
    group = Group(1, 2, 3)
    group.elect(3)
    group.crash(3)

    group.step(1, MemberGone(3))
    group.step(2, MemberGone(3))
    group.settle()

    assert group.leader == 1


def test_the_next_member_stands_where_the_first_one_can_not_win() -> None:
    group = Group(1, 2, 3)
    group.elect(3)
    group.isolate(1)
    group.propose(3, "only on 2 and 3")
    group.settle()
    group.crash(3)
    group.heal()

    group.step(1, MemberGone(3))
    group.step(2, MemberGone(3))
    group.settle()
    assert group.leader is None
    group.tick([1, 2], times=TURN_TICKS)

    assert group.leader == 2


def test_who_alone_takes_the_leader_for_gone_deposes_nobody() -> None:
    group = Group(1, 2, 3)
    group.elect(3)
    term = group[3].term

    group.step(1, MemberGone(3))
    group.settle()
    group.tick(times=3)

    assert (group.leader, group[3].term, group[1].leader) == (3, term, 3)


def test_a_question_that_was_lost_is_asked_again() -> None:
    group = Group(1, 2, 3)
    group.isolate(3)
    group.step(1, CampaignDemanded())
    while group.network:
        group.deliver_one(is_lost=True)

    group.tick([1])
    group.settle()

    assert group.leader == 1


def test_the_vote_is_on_disk_before_the_reply_leaves() -> None:
    raft = member()

    effects = raft.step(Received(vote_request(2, 9, 1)))
    persist, reply = only(Persist, effects), only(Send, effects)

    assert persist.hard_state == HardState(2, 2, 1)
    assert reply.after == persist.number


def test_the_own_vote_is_on_disk_before_others_are_asked() -> None:
    group = Group(1, 2, 3)
    group.members[1].is_disk_slow = True
    while group[1].role.kind is not Role.CANDIDATE:
        group.tick([1])

    assert not [message for message in group.network if message.sender == 1]
    group.write(1)
    group.settle()

    assert group[1].is_leader


def test_a_vote_is_remembered_over_a_crash() -> None:
    raft = member(term=2, vote=3)

    (reply,) = sent(raft.step(Received(vote_request(2, 9, 1, sender=2))))

    assert isinstance(reply, VoteReply) and not reply.is_granted


@pytest.mark.parametrize(
    ("last_index", "last_term", "is_granted"),
    [(4, 3, True), (2, 4, True), (5, 3, True), (3, 3, False), (9, 2, False)],
    ids=["equal", "later term", "longer", "shorter", "earlier term though longer"],
)
def test_only_a_log_that_is_up_to_date_gets_a_vote(last_index: int, last_term: int, is_granted: bool) -> None:
    raft = member(1, 2, 3)

    (reply,) = sent(raft.step(Received(vote_request(4, last_index, last_term))))

    assert isinstance(reply, VoteReply) and reply.is_granted == is_granted


def test_a_majority_of_votes_elects_and_less_does_not() -> None:
    group = Group(1, 2, 3, 4, 5)
    group.isolate(1, 2)
    group.tick([1], 50)
    assert not group[1].is_leader
    group.heal()

    group.tick([1], 50)

    assert group[1].is_leader
    assert {group[id].leader for id in group.members} == {1}


def test_a_candidate_follows_a_leader_of_its_term() -> None:
    group = Group(1, 2, 3)
    group.isolate(1)
    raft = group[1]
    group.step(1, CampaignDemanded())
    raft.step(Received(VoteReply(sender=3, to=1, term=2, is_granted=True, is_pre=True)))
    assert (raft.role.kind, raft.term) == (Role.CANDIDATE, 2)

    raft.step(Received(Heartbeat(sender=2, to=1, term=2, commit=0)))

    assert (raft.role.kind, raft.leader) == (Role.FOLLOWER, 2)


def test_a_candidate_refused_by_a_majority_waits_again() -> None:
    raft = member(group=(1, 2, 3))
    raft.step(CampaignDemanded())
    for sender in (2, 3):
        raft.step(Received(VoteReply(sender=sender, to=1, term=1, is_granted=False, is_pre=True)))

    assert (raft.role.kind, raft.term) == (Role.FOLLOWER, 1)


def test_waits_are_drawn_between_one_and_two_election_times() -> None:
    raft = member()
    drawn = set()
    for _ in range(200):
        raft.redraw_timeout()
        drawn.add(raft.timeout)

    assert drawn == set(range(10, 20))


def test_split_votes_are_settled_by_another_election() -> None:
    for seed in range(20):
        group = Group(1, 2, 3, 4, seed=seed)
        for id in group.members:
            group.step(id, CampaignDemanded())
        group.settle()
        group.tick(times=100)

        assert group.leader is not None


# Start of a group of one


def test_a_single_member_leads_with_its_first_step() -> None:
    raft = member(group=(1,))

    effects = raft.step(Started())
    persist = only(Persist, effects)
    after = raft.step(Persisted(persist.number))

    assert raft.is_leader
    assert persist.hard_state is not None and persist.hard_state.vote == 1
    assert [entry.index for effect in effects + after if isinstance(effect, Apply) for entry in effect.entries] == [
        1,
        2,
    ]


def test_a_single_member_takes_two_steps_for_a_write() -> None:
    group = Group(1)

    effects = group[1].step(Proposed(b"a"))
    assert only(Accept, effects) == Accept(3, 2)
    applied = only(Apply, group[1].step(Persisted(only(Persist, effects).number)))

    assert applied.entries[0].data == b"a"


# PreVote and CheckQuorum (thesis §9.6, §6.2, §4.2.3)


def test_a_member_that_was_cut_off_does_not_raise_the_term() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    term = group[1].term
    group.isolate(3)
    group.tick(times=60)
    assert group[3].term == term
    group.heal()

    group.tick(times=3)

    assert (group.leader, group[1].term, group[3].leader) == (1, term, 1)


def test_a_pre_vote_is_no_vote() -> None:
    raft = member()

    effects = raft.step(Received(vote_request(2, 9, 1, is_pre=True)))

    (reply,) = sent(effects)
    assert isinstance(reply, VoteReply) and reply.is_granted and reply.is_pre
    assert (raft.term, raft.vote) == (1, NO_ONE)
    assert not [effect for effect in effects if isinstance(effect, Persist)]


def test_while_a_leader_is_heard_nobody_else_is_voted_for() -> None:
    raft = member()
    raft.step(Received(Heartbeat(sender=2, to=1, term=1, commit=0)))

    for is_pre in (True, False):
        assert raft.step(Received(vote_request(5, 9, 4, sender=3, is_pre=is_pre))) == []
    assert raft.term == 1


def test_a_leader_without_a_majority_steps_down() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(1)

    group.tick([1], 25)

    assert not group[1].is_leader


def test_a_leader_with_a_majority_stays() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)

    group.tick(times=100)

    assert group.leader == 1
