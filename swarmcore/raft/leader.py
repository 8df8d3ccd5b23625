"""A leader: replicates its log, commits what a majority holds, confirms reads, and hands over (paper §5.3, §5.4)."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from swarmcore.raft.core import Core, RoleState
from swarmcore.raft.effects import Accept, Explain, Refuse, RefuseRead, Role, ServeRead
from swarmcore.raft.events import MembershipProposed, ReadDemanded, TransferDemanded
from swarmcore.raft.membership import Promote
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
)
from swarmcore.raft.progress import Pace, Progress
from swarmcore.raft.types import NO_ONE, EntryKind

STALLED_ELECTIONS = 5
"""So many election timeouts a leader goes on with entries that no majority makes durable."""
MAX_READS = 4096
"""Reads that wait for the others' word."""
PROOF_BEATS = 3
"""So many heartbeats after it stood still a leader waits for its followers' word."""


class _Read(NamedTuple):
    round: int
    commit: int
    member: int
    read: int


class Leader(RoleState):
    """One term of leadership."""

    kind = Role.LEADER

    def __init__(self, core: Core) -> None:
        self._core = core
        self.progress: dict[int, Progress] = {}
        self._beats = 0
        self._transferee = NO_ONE
        self._transfer_ticks = 0
        self._unfit_ticks = 0
        self._stalled_ticks = 0
        self._stalled_at = 0
        self._round = 0
        self._confirmed: dict[int, int] = {}
        """The newest heartbeat round that each member answered."""
        self._reads: deque[_Read] = deque()
        self._early_reads: list[tuple[int, int]] = []

    def begin(self) -> None:
        """Put an empty entry of the new term into the log, so that older ones can be committed (paper §8)."""
        self._follow_membership()
        self._core.append_own(EntryKind.NORMAL, b"")
        self._broadcast()

    def leave(self) -> None:
        own = [read.read for read in self._reads if read.member == self._core.id]
        own += [read for member, read in self._early_reads if member == self._core.id]
        for read in own:
            self._core.emit(RefuseRead(read))

    # Time

    def tick(self) -> None:
        core = self._core
        core.silence += 1
        self._beats += 1
        if self._transferee != NO_ONE:
            self._transfer_ticks += 1
            if self._transfer_ticks >= core.settings.election_tick:
                self._transferee = NO_ONE
        if core.silence >= core.settings.election_tick:
            core.silence = 0
            if not self._counts_quorum():
                # Somebody else may lead by now, and nothing can be committed here (thesis §6.2).
                self._give_up("too few managers answered it")
                return
        if self._maybe_give_up():
            return
        if self._beats >= core.settings.heartbeat_tick:
            self._beats = 0
            self._beat()

    def _maybe_give_up(self) -> bool:
        """Hand over, and then give up, where leading is of no use: heartbeats alone would keep others from it."""
        core = self._core
        if core.is_alone:
            return False
        self._unfit_ticks = self._unfit_ticks + 1 if core.unfit else 0
        if self._unfit_ticks > core.settings.election_tick:
            self._give_up(core.unfit)
            return True
        if self._unfit_ticks == 1 and self._transferee == NO_ONE and (successor := self.successor) != NO_ONE:
            core.emit(Explain(f"handing over: {core.unfit}"))
            self.transfer(TransferDemanded(successor))
        is_stalled = core.commit < core.log.last_index and core.commit == self._stalled_at
        self._stalled_ticks = self._stalled_ticks + 1 if is_stalled else 0
        self._stalled_at = core.commit
        if self._stalled_ticks > STALLED_ELECTIONS * core.settings.election_tick and not self._ships_snapshot:
            self._give_up("the others answer it, but too few make anything durable")
            return True
        return False

    @property
    def _ships_snapshot(self) -> bool:
        """Whether a voter is about to be of use again."""
        return any(
            self.progress[id].pace is Pace.SNAPSHOT for id in self._core.membership.voters if id in self.progress
        )

    def _give_up(self, reason: str) -> None:
        self._core.emit(Explain(reason))
        self._core.become_follower(self._core.term, NO_ONE)

    def stood_still(self) -> None:
        """Lead on only if the others say soon that they still follow."""
        core = self._core
        for progress in self.progress.values():
            progress.counted()
            progress.counted()
        core.silence = max(core.silence, core.settings.election_tick - PROOF_BEATS * core.settings.heartbeat_tick)
        self._beat()

    def _counts_quorum(self) -> bool:
        active = {id for id, progress in self.progress.items() if progress.is_active}
        for progress in self.progress.values():
            progress.counted()
        return self._core.has_majority(active | {self._core.id})

    def _beat(self) -> None:
        core = self._core
        for id, progress in self.progress.items():
            # Never more than the member is known to hold: what it has beyond may not be ours.
            commit = min(core.commit, progress.match)
            core.send(Heartbeat(sender=core.id, to=id, term=core.term, commit=commit, round=self._round))

    # Proposals

    def propose(self, kind: EntryKind, data: bytes) -> None:
        core = self._core
        if self._transferee != NO_ONE:
            core.emit(Refuse("leadership is being handed over"))
            return
        entry = core.append_own(kind, data)
        core.emit(Accept(entry.index, entry.term))
        self._broadcast()

    def propose_membership(self, event: MembershipProposed) -> None:
        core = self._core
        if core.membership_index > core.commit:
            core.emit(Refuse("another membership change is under way"))
        elif not core.has_committed_in_term:
            # Else two leaders could each commit a change by majorities that do not overlap (thesis §4.1, erratum).
            core.emit(Refuse("the leader has not committed an entry of its term yet"))
        elif isinstance(event.change, Promote) and not self._has_caught_up(event.change.id):
            core.emit(Refuse(f"member {event.change.id} has not caught up yet"))
        elif isinstance(after := core.membership.after(event.change), str):
            core.emit(Refuse(after))
        else:
            self.propose(EntryKind.MEMBERSHIP, after.encode())
            self._follow_membership()
            self._broadcast()

    def _has_caught_up(self, id: int) -> bool:
        progress = self.progress.get(id)
        lag = self._core.settings.max_inflight
        return progress is None or (
            progress.pace is Pace.REPLICATE and progress.match + lag > self._core.log.last_index
        )

    def _follow_membership(self) -> None:
        core = self._core
        members = core.membership.members
        for id in members:
            if id != core.id and id not in self.progress:
                settings = core.settings
                self.progress[id] = Progress(
                    core.log.last_index + 1, settings.max_inflight, settings.max_inflight_bytes
                )
        for id in [id for id in self.progress if id not in members]:
            del self.progress[id]
            self._confirmed.pop(id, None)
            if self._transferee == id:
                self._transferee = NO_ONE

    # Replication

    def _broadcast(self) -> None:
        for id in self.progress:
            self._send_append(id)

    def _send_append(self, to: int, *, even_empty: bool = True, even_full: bool = False) -> bool:
        """Send what the member lacks, if its pace allows; whether something went.

        `even_full`: a full window may be one whose answers were lost. A message without entries finds out.
        """
        core, progress = self._core, self.progress[to]
        is_question = even_full and progress.pace is Pace.REPLICATE and progress.is_full
        if progress.is_paused and not is_question:
            return False
        previous = progress.next - 1
        term = core.log.term_at(previous)
        if term is None:
            return self._send_snapshot(to, progress)
        entries = () if is_question else core.log.batch(progress.next, core.settings.max_message_bytes)
        if not entries and not even_empty:
            return False
        core.send(
            AppendRequest(
                sender=core.id,
                to=to,
                term=core.term,
                previous_index=previous,
                previous_term=term,
                entries=entries,
                commit=core.commit,
            )
        )
        if entries:
            progress.sent(entries[-1].index, sum(len(entry.data) for entry in entries))
        else:
            progress.sent_empty()
        return True

    def _send_snapshot(self, to: int, progress: Progress) -> bool:
        if not progress.is_active:
            return False  # nothing so large to a member that may not be there
        core = self._core
        progress.send_snapshot(core.snapshot.index)
        core.send(InstallSnapshot(sender=core.id, to=to, term=core.term, snapshot=core.snapshot))
        return True

    def needed_from(self) -> int | None:
        lacking = [
            max(progress.match, progress.snapshot_index) + 1
            for progress in self.progress.values()
            if progress.was_active
        ]
        return min(lacking, default=None)

    def stable(self) -> None:
        self._maybe_commit()

    def _maybe_commit(self) -> bool:
        """Commit what a majority holds, if it is of this term: older entries only along with it (paper §5.4.2)."""
        core = self._core
        voters = core.membership.voters
        held = sorted(core.stable_index if id == core.id else self.progress[id].match for id in voters)
        index = held[(len(held) - 1) // 2]
        if index <= core.commit or core.log.term_at(index) != core.term:
            return False
        core.commit_to(index)
        self._broadcast()
        if core.id not in core.membership and core.membership_index <= core.commit:
            # It led until its own removal was certain (thesis §4.2.2); the commit still goes out.
            core.become_follower(core.term, NO_ONE)
            return True
        for member, read in self._early_reads:
            self._read(member, read)
        self._early_reads.clear()
        return True

    # Messages

    def receive(self, message: Message) -> None:
        match message:
            case AppendReply() if message.sender in self.progress:
                self._on_append_reply(message, self.progress[message.sender])
            case HeartbeatReply() if message.sender in self.progress:
                self._on_heartbeat_reply(message, self.progress[message.sender])
            case ReadRequest():
                self._read(message.sender, message.read)

    def _on_append_reply(self, reply: AppendReply, progress: Progress) -> None:
        core, id = self._core, reply.sender
        if reply.is_accepted and reply.index > core.log.last_index:
            # It holds as agreed what this leader never had: one of both came back with another past. Whatever it is
            # sent it answers so, at once; a snapshot for it would follow the other without end.
            return
        progress.alive()
        if not reply.is_accepted:
            agreeing, _ = core.log.last_place_up_to(reply.hint_index, reply.hint_term)
            if progress.refused(reply.index, agreeing):
                self._send_append(id)
            return
        was_paused = progress.is_paused
        is_news = progress.accepted(reply.index)
        has_snapshot = progress.pace is Pace.SNAPSHOT and progress.match >= progress.snapshot_index
        if has_snapshot or (progress.pace is Pace.PROBE and reply.index == progress.match):
            progress.replicate()
        if is_news and self._maybe_commit() and core.role is not self:
            return
        if was_paused or is_news:
            while self._send_append(id, even_empty=False):
                pass
        self._maybe_hand_over(id)

    def _on_heartbeat_reply(self, reply: HeartbeatReply, progress: Progress) -> None:
        progress.heard()
        if progress.match < self._core.log.last_index:
            self._send_append(reply.sender, even_full=True)
        self._confirmed[reply.sender] = max(reply.round, self._confirmed.get(reply.sender, 0))
        self._serve_confirmed()

    def snapshot_sent(self, to: int, is_delivered: bool) -> None:
        progress = self.progress.get(to)
        if progress is None or progress.pace is not Pace.SNAPSHOT:
            return
        if is_delivered:
            progress.probe()
        else:
            progress.snapshot_failed()
        # The next word is the member's: its answer to the snapshot, or to a heartbeat.
        progress.is_waiting = True

    def unreachable(self, id: int) -> None:
        progress = self.progress.get(id)
        if progress is not None and progress.pace is Pace.REPLICATE:
            progress.probe()

    # Reads (thesis §6.4)

    def read(self, event: ReadDemanded) -> None:
        self._read(self._core.id, event.read)

    def _read(self, member: int, read: int) -> None:
        core = self._core
        if len(self._reads) + len(self._early_reads) >= MAX_READS:
            # Nobody confirms them, and who asked has given up. Followers ask again.
            if member == core.id:
                core.emit(RefuseRead(read))
        elif not core.has_committed_in_term:
            # Until then it does not know how far the log is committed.
            self._early_reads.append((member, read))
        elif core.is_alone:
            self._serve(_Read(0, core.commit, member, read))
        else:
            self._round += 1
            self._reads.append(_Read(self._round, core.commit, member, read))
            self._beat()

    def _serve_confirmed(self) -> None:
        while self._reads:
            round = self._reads[0].round
            confirming = {id for id, confirmed in self._confirmed.items() if confirmed >= round}
            if not self._core.has_majority(confirming | {self._core.id}):
                return
            self._serve(self._reads.popleft())

    def _serve(self, read: _Read) -> None:
        core = self._core
        if read.member == core.id:
            core.emit(ServeRead(read.read, read.commit))
        else:
            core.send(ReadReply(sender=core.id, to=read.member, term=core.term, read=read.read, index=read.commit))

    # Handing over (thesis §3.10)

    @property
    def successor(self) -> int:
        """The reachable voter that lacks the least; NO_ONE where there is none."""
        able = {
            id: progress.match
            for id, progress in self.progress.items()
            if progress.was_active and self._core.membership.is_voter(id)
        }
        return max(able, key=lambda id: (able[id], -id), default=NO_ONE)

    def transfer(self, event: TransferDemanded) -> None:
        core = self._core
        if event.to == core.id or event.to not in self.progress or not core.membership.is_voter(event.to):
            core.emit(Refuse(f"member {event.to} can't take over"))
            return
        self._transferee = event.to
        self._transfer_ticks = 0
        if not self._maybe_hand_over(event.to):
            self._send_append(event.to)

    def _maybe_hand_over(self, id: int) -> bool:
        core = self._core
        if id != self._transferee or self.progress[id].match < core.log.last_index:
            return False
        core.send(TimeoutNow(sender=core.id, to=id, term=core.term))
        return True
