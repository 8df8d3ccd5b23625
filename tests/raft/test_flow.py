"""How much a leader sends ahead, and how it finds its way back after losses."""

from __future__ import annotations

from dataclasses import replace

from swarmcore.raft.effects import Persist, Role, Send, TakeBack
from swarmcore.raft.events import MemberUnreachable, PersistRefused, Proposed, Received, Started, Ticked
from swarmcore.raft.leader import Leader
from swarmcore.raft.messages import AppendReply, AppendRequest, InstallSnapshot
from swarmcore.raft.progress import Pace, Progress
from swarmcore.raft.types import NO_ONE, HardState, Settings
from swarmcore.testing.raft_group import Group
from swarmcore.testing.raft_member import member, only

SMALL = Settings(max_inflight=3, max_message_bytes=20)


def progress(group: Group, of: int, leader: int = 1) -> Progress:
    role = group[leader].role
    assert isinstance(role, Leader)
    return role.progress[of]


def appends(group: Group, to: int) -> list[AppendRequest]:
    return [message for message in group.network if isinstance(message, AppendRequest) and message.to == to]


def test_no_more_than_a_window_is_under_way() -> None:
    group = Group(1, 2, settings=SMALL)
    group.elect(1)
    for _ in range(10):
        group.step(1, Proposed(b"x"))

    assert len(appends(group, 2)) == 3
    group.settle()
    assert progress(group, 2).match == group[1].log.last_index


def test_messages_are_no_larger_than_set_but_for_one_large_entry() -> None:
    group = Group(1, 2, settings=SMALL)
    group.elect(1)
    group.isolate(2)
    group.propose(1, *["x" * 8] * 9, "y" * 100)
    group.heal()
    sizes: list[int] = []
    group.step(1, Ticked())
    while group.network:
        message = group.network[0]
        if isinstance(message, AppendRequest):
            sizes.append(sum(len(entry.data) for entry in message.entries))
        group.deliver_one()

    assert max(size for size in sizes if size != 100) <= 20
    assert group[2].log.last_index == group[1].log.last_index


def test_a_member_that_does_not_answer_gets_one_message_at_a_time() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.isolate(3)
    group.step(1, MemberUnreachable(3))
    for _ in range(5):
        group.step(1, Proposed(b"x"))

    assert progress(group, 3).pace is Pace.PROBE
    assert len(appends(group, 3)) == 1


def test_lost_messages_are_made_up_for() -> None:
    group = Group(1, 2, 3, settings=SMALL)
    group.elect(1)
    for number in range(30):
        group.step(1, Proposed(b"%d" % number))
        if number % 3 == 0 and group.network:
            group.network.pop()
        if number % 5 == 0:
            group.settle()
    group.tick(times=20)

    assert [group.data(id) for id in (1, 2, 3)] == [[str(number) for number in range(30)]] * 3


def test_an_old_refusal_changes_nothing() -> None:
    one = Progress(9, 4, 100)
    one.accepted(5)
    one.replicate()

    assert not one.refused(3, 1)
    assert (one.pace, one.next) == (Pace.REPLICATE, 6)


def test_a_refusal_never_goes_back_behind_what_is_certain() -> None:
    one = Progress(9, 4, 100)
    one.match = 5

    assert one.refused(8, 2)
    assert one.next == 6


def test_no_more_bytes_than_set_are_under_way_however_few_the_messages() -> None:
    group = Group(1, 2, settings=Settings(max_inflight_bytes=100))
    group.elect(1)
    for _ in range(20):
        group.step(1, Proposed(b"x" * 30))

    assert sum(len(entry.data) for append in appends(group, 2) for entry in append.entries) == 120
    group.settle()
    assert progress(group, 2).match == group[1].log.last_index
    assert progress(group, 2).inflight_bytes == 0


def test_a_member_that_makes_nothing_durable_is_sent_no_more_than_a_window() -> None:
    group = Group(1, 2, 3, settings=SMALL)
    group.elect(1)
    group.members[3].is_disk_slow = True
    for number in range(30):
        group.propose(1, str(number))
        group.tick([1])
    sent = group[3].log.last_index - progress(group, 3).match

    assert sent == SMALL.max_inflight
    assert group.data(1) == [str(number) for number in range(30)]


def test_answers_that_were_lost_are_asked_for_again_without_more_entries() -> None:
    group = Group(1, 2, settings=SMALL)
    group.elect(1)
    group.cut = {(2, 1)}
    group.propose(1, *"abcde")
    assert progress(group, 2).is_full
    group.heal()

    group.step(1, Ticked())
    group.deliver_one()
    group.deliver_one()

    (question,) = appends(group, 2)
    assert (question.previous_index, question.entries) == (group[2].log.last_index, ())
    group.settle()
    assert group.data(2) == list("abcde")


def test_a_window_that_was_lost_on_its_way_is_sent_again() -> None:
    group = Group(1, 2, 3, settings=SMALL)
    group.elect(1)
    group.isolate(3)
    group.propose(1, *"abcde")
    assert progress(group, 3).is_full
    group.heal()

    group.tick(times=2)

    assert group.data(3) == list("abcde")


def test_a_member_that_has_agreed_on_more_than_the_leader_ever_had_starts_no_storm() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.propose(1, *"abc")
    group.snapshot(1)
    sent = 0

    for _ in range(3):
        reply = AppendReply(sender=3, to=1, term=group[1].term, is_accepted=True, index=99)
        sent += len(group.step(1, Received(reply)))

    assert sent == 0
    assert progress(group, 3).match <= group[1].log.last_index


def test_a_member_that_lost_what_it_had_confirmed_is_asked_once_a_heartbeat() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.propose(1, *"abc")
    storage = group.crash(3)
    del storage.entries[2:]
    group.start(3, replace(storage, hard_state=HardState(2, NO_ONE, 2)))

    group.step(1, MemberUnreachable(3))
    group.propose(1, "d")
    group.settle(limit=20)
    group.tick([1], 3)

    assert (progress(group, 3).match, group[3].log.last_index) == (5, 2)
    assert group.data(2) == list("abcd")


def test_a_member_alone_takes_back_what_its_disk_had_no_room_for() -> None:
    group = Group(1)
    group.propose(1, "kept")
    member = group.members[1]
    member.is_disk_slow = True
    group.step(1, Proposed(b"refused"))

    group.step(1, PersistRefused(member.unwritten[0].number))
    member.is_disk_slow = False
    group.propose(1, "after")

    assert group.data(1) == ["kept", "after"]
    group.restart(1)
    assert group.data(1) == ["kept", "after"]


def test_a_member_of_many_takes_nothing_back() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    member = group.members[1]
    member.is_disk_slow = True
    group.propose(1, "sent")

    group.step(1, PersistRefused(member.unwritten[0].number))
    group.write(1)
    group.tick(times=2)

    assert [group.data(id) for id in (1, 2, 3)] == [["sent"]] * 3


def test_a_term_that_did_not_fit_on_the_disk_is_written_again() -> None:
    raft = member(group=(1,))
    persist = only(Persist, raft.step(Started()))

    effects = raft.step(PersistRefused(persist.number))

    assert only(TakeBack, effects) == TakeBack(2)
    assert only(Persist, effects).hard_state == HardState(2, 1, 1)
    assert (raft.role.kind, raft.log.last_index) == (Role.FOLLOWER, 1)
    for _ in range(20):
        raft.step(Ticked())
    assert (raft.is_leader, raft.term) == (True, 3)


def test_sends_name_what_must_be_durable_before_them() -> None:
    group = Group(1, 2, 3)
    group.elect(1)
    group.members[2].is_disk_slow = True
    group.step(1, Proposed(b"x"))
    group.settle()

    held = group.members[2].held
    assert held
    assert {one.after for one in held if isinstance(one, Send)} == {group.members[2].unwritten[-1].number}


def catching_up(max_kept_bytes: int) -> Group:
    """Member 3 gets a snapshot while more is written, and the leader takes its next snapshot."""
    group = Group(1, 2, 3, settings=Settings(max_kept_bytes=max_kept_bytes))
    group.elect(1)
    group.isolate(3)
    group.step(1, MemberUnreachable(3))
    group.tick([1, 2], 25)
    group.propose(1, *"abc")
    group.snapshot(1)
    group.heal()
    group.step(1, Ticked())
    while not any(isinstance(message, InstallSnapshot) for message in group.network):
        group.deliver_one()
    on_its_way = next(message for message in group.network if isinstance(message, InstallSnapshot))
    group.network.remove(on_its_way)
    group.propose(1, *"defgh")
    group.snapshot(1)
    group.network.append(on_its_way)
    group.settle()
    return group


def test_who_gets_a_snapshot_while_more_is_written_goes_on_by_the_log() -> None:
    group = catching_up(max_kept_bytes=100)

    group.tick(times=2)

    assert group.data(3) == list("abcdefgh")
    assert group.members[3].storage.snapshot.index < group[1].snapshot.index


def test_what_a_member_that_lags_may_keep_in_the_log_is_bounded() -> None:
    group = catching_up(max_kept_bytes=3)

    group.tick(times=2)

    assert group.data(3) == list("abcdefgh")
    assert group.members[3].storage.snapshot.index == group[1].snapshot.index


def test_a_member_that_is_away_keeps_nothing_in_the_log() -> None:
    group = Group(1, 2, 3, settings=Settings(max_kept_bytes=1000))
    group.elect(1)
    group.isolate(3)
    group.tick([1, 2], 25)
    group.propose(1, *"abc")

    group.snapshot(1)

    assert group[1].log.start_index == group[1].snapshot.index
