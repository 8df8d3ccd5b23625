"""The Raft state machine of one member: events in, effects out.

Pure: `step` waits for nothing and reads nothing but its arguments. Terms, votes and changes of role are here; what a
member does within a role is in `follower.py`, `candidate.py` and `leader.py`.
"""

from __future__ import annotations

from random import Random

from swarmcore.raft.candidate import Candidate
from swarmcore.raft.core import Core
from swarmcore.raft.effects import Effect, Role, TakeBack
from swarmcore.raft.events import (
    CampaignDemanded,
    Event,
    FitnessJudged,
    MemberGone,
    MembershipProposed,
    MemberUnreachable,
    Persisted,
    PersistRefused,
    Proposed,
    ReadDemanded,
    Received,
    SnapshotSent,
    SnapshotTaken,
    Started,
    StoodStill,
    Ticked,
    TransferDemanded,
)
from swarmcore.raft.follower import Follower
from swarmcore.raft.leader import Leader
from swarmcore.raft.log import RaftLog
from swarmcore.raft.messages import (
    AppendReply,
    AppendRequest,
    Heartbeat,
    InstallSnapshot,
    Message,
    VoteReply,
    VoteRequest,
)
from swarmcore.raft.types import NO_ONE, NOTHING, EntryKind, HardState, Settings, SnapshotMeta

FRESH = HardState(0, NO_ONE, 0)
DEFAULTS = Settings()
TURN_TICKS = 2
"""Between the campaigns of two members that both know that their leader is gone."""


class Raft(Core):
    """One member of the group."""

    def __init__(
        self,
        *,
        id: int,
        log: RaftLog,
        hard_state: HardState = FRESH,
        snapshot: SnapshotMeta = NOTHING,
        settings: Settings = DEFAULTS,
        chance: Random,
    ) -> None:
        super().__init__(id=id, hard_state=hard_state, snapshot=snapshot, log=log, settings=settings, chance=chance)
        self.role = Follower(self)
        self.redraw_timeout()

    @property
    def is_leader(self) -> bool:
        return self.role.kind is Role.LEADER

    @property
    def active_members(self) -> set[int]:
        """Members that this one knows to be there: itself, its leader, and whom it hears from as leader."""
        known = {self.id, self.leader} - {NO_ONE}
        if isinstance(self.role, Leader):
            known |= {id for id, progress in self.role.progress.items() if progress.was_active}
        return known

    @property
    def successor(self) -> int:
        """Of a leader: the reachable voter that lacks the least; NO_ONE where there is none."""
        return self.role.successor if isinstance(self.role, Leader) else NO_ONE

    def step(self, event: Event) -> list[Effect]:
        """Take in what happened; return what to do about it, in order."""
        match event:
            case Persisted():
                self.persisted(event.number)
            case Proposed():
                self.role.propose(EntryKind.NORMAL, event.data)
            case Ticked():
                self.role.tick()
            case Received():
                self._receive(event.message)
            case ReadDemanded():
                self.role.read(event)
            case SnapshotTaken():
                self.take_snapshot(event.snapshot, event.keep_from)
            case MembershipProposed():
                self.role.propose_membership(event)
            case TransferDemanded():
                self.role.transfer(event)
            case CampaignDemanded():
                if not self.is_leader:
                    self.campaign(is_pre=True)
            case Started():
                if self.is_alone:
                    self.campaign(is_pre=False)
            case SnapshotSent():
                if isinstance(self.role, Leader):
                    self.role.snapshot_sent(event.to, event.is_delivered)
            case MemberUnreachable():
                if isinstance(self.role, Leader):
                    self.role.unreachable(event.id)
            case MemberGone():
                self._on_gone(event.id)
            case PersistRefused():
                self._persist_refused()
            case FitnessJudged():
                self._judged(event.why_not)
            case StoodStill():
                if isinstance(self.role, Leader):
                    self.role.stood_still()
        return self.finish()

    # Messages

    def _receive(self, message: Message) -> None:
        if message.to != self.id or self.was_removed(message.sender):
            return
        if message.term > self.term and not self._follow_term(message):
            return
        if message.term < self.term:
            self._answer_old_term(message)
            return
        match message:
            case VoteRequest():
                self._on_vote_request(message)
            case AppendRequest() | Heartbeat() | InstallSnapshot():
                if self.is_leader:
                    return  # two leaders in one term: impossible, and nothing to obey
                if self.role.kind is not Role.FOLLOWER or self.leader != message.sender:
                    self.become_follower(self.term, message.sender)
                self.role.receive(message)
            case _:
                self.role.receive(message)

    def _follow_term(self, message: Message) -> bool:
        """Whoever is in an older term joins the newer one (paper §5.1); False when the message is to be ignored."""
        match message:
            case VoteRequest():
                has_lease = self.leader != NO_ONE and self.silence < self.settings.election_tick
                if has_lease and not message.is_transfer:
                    # The leader is alive here: a member that lost sight of it must not depose it (thesis §4.2.3).
                    return False
                if not message.is_pre:
                    self.become_follower(message.term, NO_ONE)
            case VoteReply(is_pre=True, is_granted=True):
                # It carries the term that would follow; nobody is in it yet.
                if message.term == self.term + 1:
                    self.role.receive(message)
                return False
            case AppendRequest() | Heartbeat() | InstallSnapshot():
                self.become_follower(message.term, message.sender)
            case _:
                self.become_follower(message.term, NO_ONE)
        return True

    def _answer_old_term(self, message: Message) -> None:
        """Tell a leader or candidate of an older term of the newer one; everything else that is old is ignored."""
        match message:
            case AppendRequest() | Heartbeat() | InstallSnapshot():
                self.send(AppendReply(sender=self.id, to=message.sender, term=self.term, is_accepted=False, index=0))
            case VoteRequest():
                self.send(
                    VoteReply(
                        sender=self.id, to=message.sender, term=self.term, is_granted=False, is_pre=message.is_pre
                    )
                )

    def _on_vote_request(self, ask: VoteRequest) -> None:
        is_free = self.vote == ask.sender or (self.vote == NO_ONE and self.leader == NO_ONE)
        may_vote = is_free or (ask.is_pre and ask.term > self.term)
        granted = may_vote and self.log.is_current(ask.last_index, ask.last_term)
        if granted and not ask.is_pre:
            self.vote = ask.sender
            self.silence = 0
        term = ask.term if granted else self.term
        self.send(VoteReply(sender=self.id, to=ask.sender, term=term, is_granted=granted, is_pre=ask.is_pre))

    def _on_gone(self, id: int) -> None:
        """Without the leader, stand for election at once; members take turns, so that they don't split the votes."""
        if isinstance(self.role, Leader):
            self.role.unreachable(id)
        elif id == self.leader:
            self.leader = NO_ONE
            self.silence = 0
            turn = sum(voter < self.id for voter in self.membership.voters if voter != id)
            self.timeout = turn * TURN_TICKS
            if turn == 0:
                self.campaign(is_pre=True)

    # Changes of role

    def _become(self, role: Follower | Candidate | Leader) -> None:
        self.role.leave()
        self.role = role

    def _enter_term(self, term: int, vote: int) -> None:
        self.term, self.vote = term, vote

    def become_follower(self, term: int, leader: int) -> None:
        if term > self.term:
            self._enter_term(term, NO_ONE)
        # A higher term alone is no sign of a leader: who only saw one goes on waiting (paper §5.2).
        if leader != NO_ONE or self.role.kind is not Role.FOLLOWER:
            self.redraw_timeout()
        self.leader = leader
        if self.role.kind is not Role.FOLLOWER:
            self._become(Follower(self))

    def campaign(self, *, is_pre: bool, is_transfer: bool = False) -> None:
        if not self.may_campaign:
            return
        self.leader = NO_ONE
        if not is_pre:
            self._enter_term(self.term + 1, self.id)
        self.redraw_timeout()
        candidate = Candidate(self, is_pre=is_pre)
        self._become(candidate)
        candidate.ask(is_transfer=is_transfer)

    def become_leader(self) -> None:
        self.leader = self.id
        self.redraw_timeout()
        leader = Leader(self)
        self._become(leader)
        leader.begin()

    def _judged(self, why_not: str) -> None:
        self.unfit = why_not
        if why_not and self.role.kind in (Role.PRE_CANDIDATE, Role.CANDIDATE) and not self.is_alone:
            self.become_follower(self.term, NO_ONE)

    # The disk

    def _persist_refused(self) -> None:
        if not (self.is_leader and len(self.membership.members) == 1 and self.membership_index <= self.stable_index):
            return
        self.emit(TakeBack(self.take_back()))
        if self.log.last_term != self.term:
            # Even the first entry of the term did not fit, nor the term: write that again, and stand once more.
            self._saved = (-1, NO_ONE)
            self.become_follower(self.term, NO_ONE)
