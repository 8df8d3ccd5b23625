"""What goes wrong, and for how long: drawn anew for each run, of kinds that are drawn for the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from swarmcore.raft.effects import Accept
from swarmcore.raft.events import CampaignDemanded, MembershipProposed, TransferDemanded
from swarmcore.raft.membership import AddLearner, MembershipChange, Move, Promote, Remove
from swarmcore.raft.messages import AppendReply, AppendRequest, Heartbeat, HeartbeatReply, TimeoutNow, VoteReply
from swarmcore.testing.simulation.files import Files
from swarmcore.testing.simulation.member import Member, WatchedReplica, make_folder

if TYPE_CHECKING:
    from swarmcore.testing.simulation.group import Group

_PAUSE_SECONDS = 0.3
_MAX_MEMBERS = 6


class Faults:
    """Each fault is a method: it does something and, where that lasts, has it undone after a while."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._chance = group.split_chance()
        self._said = 0
        elections = [
            self.kill_the_leader,
            self.campaign,
            self.transfer,
            self.cut_off_the_leader,
            self.usurp,
            self.take_for_gone,
            self.drift,
        ]
        machines = [
            self.kill,
            self.power_loss,
            self.power_loss_of_all,
            self.power_cut_in_a_write,
            self.pause,
            self.jump,
        ]
        disks = [self.failed_sync, self.full_disk, self.slow_disk, self.hung_disk, self.rotate_keys]
        lost_disks = [self.lose_the_disk, self.swap_the_disk]
        partitions = [self.cut_off_one, self.cut_off_a_minority, self.split, self.ring, self.one_way]
        network = [self.lose, self.lose_one_kind, self.delay, self.double, self.break_snapshots]
        membership = [self.add_member, self.remove_member]
        themes = (elections, machines, disks, lost_disks, partitions, network, membership)
        # A few kinds at a time meet deeper than all of them at once.
        match self._chance.randrange(5):
            case 0:
                self.kinds = [kind for theme in themes for kind in theme]
            case 1:
                # Logs part when leaders change while entries are under way (paper, figure 8).
                self.kinds = [self.usurp, self.lose_one_kind, self.delay, *self._chance.choice(themes)]
            case 2:
                self.kinds = [kind for theme in self._chance.sample(themes, 2) for kind in theme]
            case 3:
                self.kinds = [kind for theme in self._chance.sample(themes, 3) for kind in theme]
            case _:
                self.kinds = self._chance.sample([kind for theme in themes for kind in theme], 4)
        self._pause_seconds = _PAUSE_SECONDS * self._chance.choice((0.3, 1.0, 3.0))
        if self.lose_the_disk in self.kinds or self.swap_the_disk in self.kinds:
            # Whoever else is taken out at the same time could be the one that is needed.
            self.kinds = [kind for kind in self.kinds if kind != self.remove_member]
        self._has_lost_a_disk = False

    async def run(self) -> None:
        """Let things go wrong, until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds * self._chance.random() * 2)
            kind = self._chance.choice(self.kinds)
            before = self._said
            kind()
            if self._said > before:
                self._group.count(f"fault: {kind.__name__}")

    def _say(self, text: str, *values: object) -> None:
        """Say that a fault really happens: many can't at the moment that they are drawn."""
        self._said += 1
        self._group.note(f"fault: {text}", *values)

    def undo(self) -> None:
        """Put everything right that can be."""
        group = self._group
        group.network.heal()
        group.network.loss = group.network.delay_seconds = group.network.doubling = group.network.breaking = 0.0
        for member in group.members.values():
            self._repair(member)
            member.maybe_start()

    def _repair(self, member: Member) -> None:
        member.files.capacity, member.files.is_failing, member.files.fuse = 1 << 30, False, 0
        member.files.dies_at_sync = False
        if member.process is not None:
            member.process.disk_seconds = 0.001
            member.process.free_disks()
            member.process.resume()
        if member.clock is not None:
            member.clock.drift(1.0)

    # Who, and how long

    def _running(self) -> list[Member]:
        return [member for member in self._group.members.values() if member.is_up]

    def _one(self) -> Member | None:
        running = self._running()
        return self._chance.choice(running) if running else None

    def _leader(self) -> Member | None:
        leading = [m for m in self._running() if m.replica is not None and m.replica.raft.is_leader]
        return self._chance.choice(leading) if leading else None

    def _later(self, undo: Callable[[], None], seconds: float = 2.0) -> None:
        asyncio.get_running_loop().call_later(seconds * self._chance.random(), undo)

    # Processes and machines

    def _restart_later(self, member: Member) -> None:
        self._later(member.maybe_start)

    def kill(self, member: Member | None = None) -> None:
        member = member or self._one()
        if member is not None:
            self._say("%s is killed", member)
            member.crash()
            self._restart_later(member)

    def kill_the_leader(self) -> None:
        self.kill(self._leader())

    def power_loss(self) -> None:
        if (member := self._one()) is not None:
            self._say("%s loses power", member)
            self._cut_power(member)

    def _cut_power(self, member: Member) -> None:
        """Now, or when what it writes next is about to be synced."""
        if self._chance.random() < 0.5:
            member.crash(power_cut=True)
            self._restart_later(member)
        else:
            member.files.dies_at_sync = True

    def power_loss_of_all(self) -> None:
        self._say("everything loses power")
        for member in list(self._group.members.values()):
            self._cut_power(member)

    def power_cut_in_a_write(self) -> None:
        if (member := self._one()) is not None:
            member.files.fuse = self._chance.randrange(1, 9)
            self._say("%s will lose power at change %d of its disk", member, member.files.fuse)

    def pause(self) -> None:
        member = self._one()
        if member is not None and member.process is not None:
            self._say("%s stands still", member)
            process = member.process
            process.is_paused = True
            self._later(process.resume, 4.0)

    def jump(self) -> None:
        member = self._one()
        if member is not None and member.clock is not None:
            member.clock.skew += self._chance.choice((-3600.0, -1.0, 1.0, 3600.0))
            self._say("the wall clock of %s jumps", member)

    def drift(self) -> None:
        member = self._one()
        if member is not None and member.clock is not None:
            rate = self._chance.choice((0.5, 0.8, 1.3, 3.0))
            member.clock.drift(rate)
            self._say("the clock of %s runs at %s", member, rate)

    # Disks

    def failed_sync(self) -> None:
        if (member := self._one()) is not None:
            self._say("the disk of %s fails to sync", member)
            files = member.files
            files.is_failing = True

            def repair() -> None:
                files.is_failing = False

            self._later(repair)

    def full_disk(self) -> None:
        if (member := self._one()) is not None:
            self._say("the disk of %s is full", member)
            member.files.capacity = member.files.used + self._chance.choice((0, 0, 100, 5000))

            def empty() -> None:
                member.files.capacity = 1 << 30

            self._later(empty, 3.0)

    def slow_disk(self) -> None:
        member = self._one()
        if member is not None and member.process is not None:
            process = member.process
            process.disk_seconds = self._chance.choice((0.05, 0.5, 3.0))
            self._say("the disk of %s takes up to %s s", member, process.disk_seconds)

            def hurry() -> None:
                process.disk_seconds = 0.001

            self._later(hurry, 3.0)

    def hung_disk(self) -> None:
        """Nothing fails, nothing ends: of the leader more often, since its heartbeats go on."""
        member = self._leader() if self._chance.random() < 0.5 else self._one()
        if member is not None and member.process is not None:
            self._say("the disk of %s hangs", member)
            process = member.process
            process.hang_disks()
            self._later(process.free_disks, 6.0)

    def lose_the_disk(self) -> None:
        """An empty disk: the member must not vote again under its id; another one takes its place."""
        member = self._one()
        if member is None or not self._may_lose_one():
            return
        self._say("%s comes back with an empty disk", member)
        self._replace_disk(member, Files(self._group.chance, self._group.counts))

    def swap_the_disk(self) -> None:
        """A member comes back with what is another one's."""
        member, other = self._one(), self._one()
        if member is None or other is None or member is other or not self._may_lose_one():
            return
        self._say("%s comes back with the disk of %s", member, other)
        self._replace_disk(member, other.files.after_kill())

    def _may_lose_one(self) -> bool:
        leader = self._leader()
        if self._has_lost_a_disk or leader is None or leader.replica is None:
            return False
        raft = leader.replica.raft
        self._has_lost_a_disk = len(raft.membership.voters) >= 3 and raft.membership_index <= raft.commit
        return self._has_lost_a_disk

    def _replace_disk(self, member: Member, files: Files) -> None:
        member.crash()
        member.files = files
        member.is_locked_out = True
        member.start()
        self._group.expel(member.id)

    def rotate_keys(self) -> None:
        member = self._one()
        if member is not None and member.replica is not None:
            self._say("%s changes its data key", member)
            self._group.background(self._rotate_keys(member, member.replica))

    async def _rotate_keys(self, member: Member, replica: WatchedReplica) -> None:
        """What only the files from before the change hold is missed by a start right after it."""
        await replica.rotate_keys()
        if member.replica is replica and self._chance.random() < 0.5:
            self._group.note("%s is killed right after the change of its key", member)
            self.kill(member)

    # The network

    def _partition(self, what: str, cut: Callable[[list[int]], None]) -> None:
        ids = list(self._group.members)
        if len(ids) < 2:
            return
        self._chance.shuffle(ids)
        cut(ids)
        self._say("%s, %s", what, ids)
        self._later(self._group.network.heal, 5.0)

    def cut_off_one(self) -> None:
        self._partition("one is cut off", lambda ids: self._group.network.isolate(ids[:1], ids[1:]))

    def cut_off_a_minority(self) -> None:
        def cut(ids: list[int]) -> None:
            some = (len(ids) - 1) // 2
            self._group.network.isolate(ids[:some], ids[some:])

        self._partition("a minority is cut off", cut)

    def cut_off_the_leader(self) -> None:
        """With a minority: the majority goes on without it."""
        leader = self._leader()
        if leader is None:
            return

        def cut(ids: list[int]) -> None:
            ids.remove(leader.id)
            ids.insert(0, leader.id)
            some = 1 + self._chance.randrange(max(1, (len(ids) - 1) // 2))
            self._group.network.isolate(ids[:some], ids[some:])

        self._partition("the leader is cut off", cut)

    def split(self) -> None:
        def cut(ids: list[int]) -> None:
            for one in ids:
                self._group.network.isolate([one], [other for other in ids if other != one])

        self._partition("everybody is alone", cut)

    def ring(self) -> None:
        self._partition("a ring", self._group.network.make_ring)

    def one_way(self) -> None:
        def cut(ids: list[int]) -> None:
            some = 1 + self._chance.randrange(len(ids) - 1)
            sides = [ids[:some], ids[some:]]
            self._chance.shuffle(sides)
            self._group.network.cut_one_way(*sides)

        self._partition("one way only", cut)

    def lose(self) -> None:
        self._group.network.loss = self._chance.choice((0.0, 0.05, 0.3))
        self._say("the network loses %s", self._group.network.loss)

    def lose_one_kind(self) -> None:
        """Everything seems well, and yet logs part, votes miss or answers fail."""
        kinds = self._chance.choice(((AppendRequest,), (AppendReply,), (VoteReply,), (HeartbeatReply,), (Heartbeat,)))
        self._group.network.lost_kinds = kinds
        self._say("the network loses %s", kinds[0].__name__)

        def end() -> None:
            self._group.network.lost_kinds = ()

        self._later(end, 1.5)

    def delay(self) -> None:
        self._group.network.delay_seconds = self._chance.choice((0.0, 0.05, 0.3, 2.0))
        self._say("the network delays by %s s", self._group.network.delay_seconds)

    def double(self) -> None:
        self._group.network.doubling = self._chance.choice((0.0, 0.1, 0.5))
        self._say("the network doubles %s", self._group.network.doubling)

    def break_snapshots(self) -> None:
        self._group.network.breaking = self._chance.choice((0.0, 0.1, 0.3))
        self._say("each part of a snapshot is lost with its stream by %s", self._group.network.breaking)

    # The group

    def transfer(self) -> None:
        leader, other = self._leader(), self._one()
        if leader is not None and other is not None and leader.replica is not None:
            self._say("%s is to hand over to %s", leader, other)
            leader.replica.demand(TransferDemanded(other.id))

    def take_for_gone(self) -> None:
        """A connection breaks, and is refused for a moment, though its other end lives."""
        member, other = self._one(), self._leader()
        if member is not None and other is not None and member is not other:
            self._say("%s takes %s for gone", member, other)
            member.tell_gone(other.id)

    def usurp(self) -> None:
        """A member is told to take over, by a leader that changes its mind: at any time, and whatever its log."""
        leader, other = self._leader(), self._one()
        if leader is not None and other is not None and other.replica is not None and leader is not other:
            self._say("%s is told to take over from %s", other, leader)
            other.take(TimeoutNow(sender=leader.id, to=other.id, term=other.replica.raft.term))

    def campaign(self) -> None:
        member = self._one()
        if member is not None and member.replica is not None:
            self._say("%s campaigns", member)
            member.replica.demand(CampaignDemanded())

    def add_member(self) -> None:
        leader = self._leader()
        if leader is None or leader.replica is None:
            return
        learners = [m.id for m in leader.replica.raft.membership.members.values() if not m.is_voter]
        if learners and self._chance.random() < 0.7:
            self._change(leader, Promote(self._chance.choice(learners)))
        elif len(leader.replica.raft.membership.members) < _MAX_MEMBERS:
            node_id = f"node-{self._chance.randrange(1 << 30)}"
            answer = self._change(leader, AddLearner(node_id, ""))
            if answer is not None:
                id = leader.replica.raft.membership.last_id
                self._group.background(self._join(answer, id, node_id))

    async def _join(self, answer: Accept, id: int, node_id: str) -> None:
        """Start the new member once it is certain that it is one: else its id may be given to another."""
        group = self._group
        agreed = None
        while agreed is None:
            await asyncio.sleep(0.05)
            agreed = group.invariants.agreed.get(answer.index)
        if agreed.term != answer.term:
            return
        member = group.add(id, node_id)
        make_folder(member.files, node_id, id, None)
        member.start()

    def remove_member(self) -> None:
        leader = self._leader()
        if leader is None or leader.replica is None:
            return
        members = list(leader.replica.raft.membership.members)
        if len(members) > 2:
            self._change(leader, Remove(self._chance.choice(members)))

    def _change(self, leader: Member, change: MembershipChange) -> Accept | None:
        assert leader.replica is not None
        answer = leader.replica.demand(MembershipProposed(change))
        self._say("%s: %s, %s", leader, change, answer)
        if isinstance(answer, Accept) and not isinstance(change, Promote) and self._chance.random() < 0.3:
            # A second one at once has to be refused: nobody has agreed to the first.
            second = leader.replica.demand(MembershipProposed(Move(leader.id, "")))
            self._say("%s: another change at once, %s", leader, second)
        return answer if isinstance(answer, Accept) else None
