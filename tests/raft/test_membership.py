"""Who belongs: learners, one change at a time, removal, and handing over.

One rule of the paper or the thesis, one test.
"""

from __future__ import annotations

import pytest

from swarmcore.raft.effects import Accept, Refuse, Role
from swarmcore.raft.events import (
    CampaignDemanded,
    MembershipProposed,
    Received,
    Ticked,
    TransferDemanded,
)
from swarmcore.raft.membership import AddLearner, Membership, Move, Promote, Remove
from swarmcore.raft.messages import (
    TimeoutNow,
)
from swarmcore.testing.raft_group import Group, voters
from swarmcore.testing.raft_member import vote_request

# Learners and membership (thesis §4)


def test_a_learner_gets_everything_and_counts_for_nothing() -> None:
    group = Group(1)
    group.propose(1, "a")
    group.change(1, AddLearner("node-2", "host-2:4242"))
    group.join(2)
    group.tick(times=3)
    assert group.data(2) == ["a"]
    group.isolate(2)

    group.propose(1, "b")

    assert group.data(1) == ["a", "b"]


def test_a_learner_never_campaigns() -> None:
    group = Group(1)
    group.change(1, AddLearner("node-2", ""))
    group.join(2)
    group.tick(times=3)
    group.isolate(2)

    group.tick([2], 100)
    group.step(2, CampaignDemanded())

    assert (group[2].role.kind, group[2].term) == (Role.FOLLOWER, group[1].term)


def grown(count: int) -> Group:
    group = Group(1)
    for id in range(2, count + 1):
        assert isinstance(group.change(1, AddLearner(f"node-{id}", "")), Accept)
        group.join(id)
        group.tick(times=3)
        assert isinstance(group.change(1, Promote(id)), Accept)
        group.tick(times=2)
    return group


def test_a_group_grows_one_by_one() -> None:
    group = grown(5)
    group.isolate(4, 5)
    group.propose(1, "a")
    assert group.data(1) == ["a"]
    group.isolate(3)

    group.propose(1, "b")

    assert group.data(1) == ["a"]


def test_one_change_at_a_time() -> None:
    group = grown(3)
    group.isolate(1)
    assert isinstance(group.change(1, AddLearner("node-4", "")), Accept)

    refused = group.change(1, AddLearner("node-5", ""))

    assert refused == Refuse("another membership change is under way")


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    group = Group(1, 2, 3)
    while not group[1].is_leader:
        group.step(1, Ticked())
        while group.network and not group[1].is_leader:
            group.deliver_one()

    group.step(1, MembershipProposed(AddLearner("node-4", "")))

    assert group.members[1].answer == Refuse("the leader has not committed an entry of its term yet")


def test_a_learner_that_lags_behind_is_not_promoted() -> None:
    group = Group(1)
    group.change(1, AddLearner("node-2", ""))

    assert group.change(1, Promote(2)) == Refuse("member 2 has not caught up yet")


def test_a_membership_is_in_force_from_the_moment_it_is_in_the_log() -> None:
    group = grown(3)
    group.isolate(1)

    group.change(1, Move(2, "elsewhere"))

    assert group[1].membership.members[2].address == "elsewhere"
    assert group[1].membership_index > group[1].commit


def test_a_membership_that_was_never_committed_is_taken_back_with_its_entry() -> None:
    group = grown(3)
    group.isolate(1)
    group.change(1, Move(2, "elsewhere"))
    group.tick([2, 3], 30)
    group.heal()

    group.tick(times=5)

    assert group[1].membership.members[2].address == ""
    assert group[1].membership == group[2].membership


def test_a_leader_that_is_removed_leads_until_that_is_certain() -> None:
    group = grown(3)
    group.step(1, MembershipProposed(Remove(1)))
    assert group[1].is_leader

    group.settle()
    group.tick(times=60)

    assert not group[1].is_leader
    assert group.leader in (2, 3)
    assert set(group[2].membership.members) == {2, 3}


def test_the_last_word_of_a_leader_that_takes_itself_out_is_heard() -> None:
    group = grown(3)
    group.step(1, MembershipProposed(Remove(1)))

    group.settle()

    assert group[2].commit == group[2].membership_index == group[3].commit


def test_a_leader_whose_removal_was_cut_short_is_needed_until_another_has_its_entries() -> None:
    group = Group(1, 2)
    group.elect(1)
    group.isolate(1)
    group.propose(1, "a")
    group.change(1, Remove(1))
    group.restart(1)
    group.heal()

    group.tick(times=60)

    assert group.leader == 2
    assert set(group[2].membership.members) == {2}
    assert group.data(2) == ["a"]


def test_a_removed_member_disturbs_nobody() -> None:
    group = grown(3)
    group.change(1, Remove(3))
    term = group[1].term

    group.tick(times=100)

    assert (group.leader, group[1].term) == (1, term)
    assert group[1].step(Received(vote_request(term + 5, 99, term + 4, sender=3))) == []


def test_the_id_of_a_removed_member_is_never_used_again() -> None:
    membership = voters(1, 2, 3)
    removed = membership.after(Remove(3))
    assert isinstance(removed, Membership)

    added = removed.after(AddLearner("node-3", ""))

    assert isinstance(added, Membership)
    assert set(added.members) == {1, 2, 4}
    assert added.was_removed(3) and not added.was_removed(4) and not added.was_removed(5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (AddLearner("node-1", ""), "node 'node-1' is a member already"),
        (Promote(9), "there is no member 9"),
        (Promote(1), "member 1 is a voter already"),
        (Remove(9), "there is no member 9"),
        (Move(9, ""), "there is no member 9"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(change: AddLearner | Promote | Remove | Move, reason: str) -> None:
    assert voters(1, 2).after(change) == reason


def test_the_last_voter_stays() -> None:
    assert voters(1).after(Remove(1)) == "the last voter can't be removed"


def test_a_membership_reads_back() -> None:
    membership = voters(1, 2, 3).after(Remove(2))
    assert isinstance(membership, Membership)

    assert Membership.decode(membership.encode()) == membership
    for wrong in (b"", b"{}", b"[]", b'{"last_id":1,"members":[[1]]}'):
        with pytest.raises(ValueError, match=r"."):
            Membership.decode(wrong)


# Leadership transfer (thesis §3.10)


def test_leadership_is_handed_over_without_a_wait() -> None:
    group = Group(1, 2, 3)
    group.elect(1)

    group.step(1, TransferDemanded(3))
    group.settle()

    assert group.leader == 3
    assert group[3].term == 3


def test_a_member_that_lags_behind_gets_all_entries_before_it_takes_over() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)
    group.propose(1, "a", "b")
    group.heal()
    group.tick([1])

    group.step(1, TransferDemanded(3))
    group.tick([1], 2)

    assert group.leader == 3
    assert group.data(3) == ["a", "b"]


def test_while_leadership_is_handed_over_nothing_is_taken_in() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)
    group.step(1, TransferDemanded(3))

    refused = group.propose(1, "a")

    assert refused == Refuse("leadership is being handed over")


def test_a_transfer_that_fails_is_given_up_after_an_election_time() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)
    group.step(1, TransferDemanded(3))

    group.tick(times=11)

    assert group.leader == 1
    assert isinstance(group.propose(1, "a"), Accept)


@pytest.mark.parametrize("to", [1, 9])
def test_only_another_voter_can_take_over(to: int) -> None:
    group = Group(1, 2, 3)
    group.elect(1)

    group.step(1, TransferDemanded(to))

    assert group.members[1].answer == Refuse(f"member {to} can't take over")


def test_the_lease_does_not_stand_against_a_transfer() -> None:
    group = Group(1, 2, 3)
    group.elect(1)

    group.step(2, Received(TimeoutNow(sender=1, to=2, term=group[1].term)))
    group.settle()

    assert group.leader == 2
