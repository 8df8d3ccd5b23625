"""A leader that can't do what a leader must: its disk hangs, its followers' do, or it stood still."""

from __future__ import annotations

from swarmcore.raft.effects import Explain, Role, Send
from swarmcore.raft.events import CampaignDemanded, FitnessJudged, Proposed, Received, StoodStill, Ticked
from swarmcore.raft.messages import AppendRequest, TimeoutNow
from swarmcore.testing.raft_group import Group
from swarmcore.testing.raft_member import append, member

HUNG = FitnessJudged("its disk hangs")
WELL = FitnessJudged("")


def test_a_leader_that_cannot_hands_over_to_a_voter_that_lacks_nothing() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.members[1].is_disk_slow = True
    group.propose(1, "a")

    group.step(1, HUNG)
    group.tick()

    assert group.leader in (2, 3)
    assert not group[1].is_leader
    assert group.data(group.leader or 0) == ["a"]


def test_where_nobody_can_take_over_it_gives_up_after_an_election_timeout_and_says_why() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    for other in (2, 3):
        group.members[other].is_disk_slow = True
    group.propose(1, "a")

    group.step(1, HUNG)
    effects = [effect for _ in range(group.settings.election_tick + 1) for effect in group.step(1, Ticked())]

    assert (group[1].role.kind, group[1].leader) == (Role.FOLLOWER, 0)
    assert [effect.reason for effect in effects if isinstance(effect, Explain)][-1] == "its disk hangs"


def test_who_cannot_lead_does_not_campaign_whoever_asks_for_it() -> None:
    raft = member(term=1)
    raft.step(HUNG)

    raft.step(CampaignDemanded())
    for _ in range(50):
        raft.step(Ticked())
    raft.step(Received(TimeoutNow(sender=2, to=1, term=1)))

    assert (raft.role.kind, raft.term) == (Role.FOLLOWER, 1)


def test_a_candidate_that_cannot_lead_any_more_stands_back() -> None:
    raft = member(term=1)
    raft.step(CampaignDemanded())
    before = raft.role.kind

    raft.step(HUNG)

    assert (before, raft.role.kind) == (Role.PRE_CANDIDATE, Role.FOLLOWER)


def test_who_can_lead_again_campaigns_again() -> None:
    raft = member(term=1)
    raft.step(HUNG)
    raft.step(WELL)

    for _ in range(2 * raft.settings.election_tick):
        raft.step(Ticked())

    assert raft.role.kind is Role.PRE_CANDIDATE


def test_who_decides_alone_goes_on() -> None:
    group = Group(1)
    assert group[1].is_leader

    group.step(1, HUNG)
    group.tick(times=30)

    assert group[1].is_leader
    group.propose(1, "a")
    assert group.data(1) == ["a"]


def test_a_follower_that_cannot_write_takes_no_entries_in() -> None:
    raft = member(1, term=1)
    raft.step(HUNG)

    effects = raft.step(Received(append(1, (2, 1), 1)))

    assert effects == [] or not any(isinstance(effect, Send) for effect in effects)
    assert raft.log.last_index == 2


def test_what_it_did_not_take_in_comes_again_when_it_can() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.step(2, HUNG)
    group.propose(1, "a", "b")
    assert group.data(2) == []

    group.step(2, WELL)
    group.tick(times=3)

    assert group.data(2) == ["a", "b"]


def test_a_leader_whose_followers_answer_and_write_nothing_gives_up() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    for other in (2, 3):
        group.members[other].is_disk_slow = True
    group.step(1, Proposed(b"a"))

    group.tick(times=4 * group.settings.election_tick)
    assert group[1].is_leader
    group.tick(times=2 * group.settings.election_tick)

    assert not group[1].is_leader


def test_a_follower_that_gets_a_snapshot_is_waited_for() -> None:
    group = Group(1, 2)
    group.elect(1)
    group.isolate(2)
    group.step(1, Proposed(b"a"))
    group.network.clear()
    progress = group[1].role.progress[2]  # type: ignore[attr-defined]
    group.heal()
    progress.send_snapshot(1)

    group.tick(times=8 * group.settings.election_tick)

    assert group[1].is_leader


def test_a_leader_that_stood_still_leads_on_when_the_others_follow() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    term = group[1].term

    group.step(1, StoodStill())
    group.settle()
    group.tick(times=5)

    assert (group.leader, group[1].term) == (1, term)


def test_a_leader_that_stood_still_gives_up_at_once_when_nobody_answers() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(1)

    group.step(1, StoodStill())
    group.tick([1], times=3)

    assert not group[1].is_leader


def test_a_leader_that_stood_still_asks_at_once() -> None:
    group = Group(1, 2, 3)
    group.elect(1)

    effects = group.step(1, StoodStill())

    assert {effect.message.to for effect in effects if isinstance(effect, Send)} == {2, 3}
    assert not any(isinstance(effect.message, AppendRequest) for effect in effects if isinstance(effect, Send))
