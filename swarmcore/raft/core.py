"""What a member is, whatever its role: term, vote, log, membership; and the effects that a step collects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from random import Random

from swarmcore.raft.effects import Announce, Apply, Effect, Persist, Restore, Role, Send
from swarmcore.raft.events import MembershipProposed, ReadDemanded, TransferDemanded
from swarmcore.raft.log import RaftLog
from swarmcore.raft.membership import Membership
from swarmcore.raft.messages import Message
from swarmcore.raft.types import NO_ONE, Entry, EntryKind, HardState, Settings, SnapshotMeta


class RoleState(ABC):
    """What a member does in one role. Made anew at each change of role."""

    kind: Role

    @abstractmethod
    def tick(self) -> None: ...

    @abstractmethod
    def receive(self, message: Message) -> None:
        """Handle a message of the member's own term that every role does not handle alike."""

    @abstractmethod
    def propose(self, kind: EntryKind, data: bytes) -> None: ...

    @abstractmethod
    def propose_membership(self, event: MembershipProposed) -> None: ...

    @abstractmethod
    def read(self, event: ReadDemanded) -> None: ...

    @abstractmethod
    def transfer(self, event: TransferDemanded) -> None: ...

    def stable(self) -> None:  # noqa: B027 - only a leader counts its own disk
        """More of the log is durable here."""

    def needed_from(self) -> int | None:
        """The first entry that another member still lacks; None where nobody is known to need any."""
        return None

    def leave(self) -> None:  # noqa: B027 - most have nothing to leave behind
        """Another role follows."""


class Core(ABC):
    """The state that all roles share. Roles change it; `finish` turns what changed into effects."""

    def __init__(
        self,
        *,
        id: int,
        hard_state: HardState,
        snapshot: SnapshotMeta,
        log: RaftLog,
        settings: Settings,
        chance: Random,
    ) -> None:
        self.id = id
        self.settings = settings
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader = NO_ONE
        self.log = log
        self.snapshot = snapshot
        """The newest snapshot that the driver has."""
        self.commit = min(max(hard_state.commit, snapshot.index), log.last_index)
        self.stable_index = log.last_index
        """The log is durable here up to this index."""
        self.silence = 0
        """Ticks since a leader was heard, or since a leader last counted its followers."""
        self.timeout = settings.election_tick
        self.unfit = ""
        """Why the driver can't do what a leader must; empty while it can."""
        self.role: RoleState
        self._chance = chance
        self._handed_out = snapshot.index
        self._memberships = [(snapshot.index, snapshot.membership)]
        for entry in log.between(snapshot.index + 1, log.last_index):
            self._note_membership(entry)
        self._number = 0
        self._term_number = 0
        self._saved = (self.term, self.vote)
        self._unsaved_from = log.last_index + 1
        self._under_way: deque[tuple[int, int, int]] = deque()
        """Number, last index and its term of each Persist that is not known to be durable."""
        self._out: list[Effect] = []
        self._sends: list[tuple[Message, bool]] = []
        self._restore: SnapshotMeta | None = None
        self._announced = (Role.FOLLOWER, self.term, NO_ONE)

    # Changes of role, which know the roles

    @abstractmethod
    def become_follower(self, term: int, leader: int) -> None: ...

    @abstractmethod
    def become_leader(self) -> None: ...

    @abstractmethod
    def campaign(self, *, is_pre: bool, is_transfer: bool = False) -> None: ...

    # Membership

    @property
    def membership(self) -> Membership:
        """The newest in the log, committed or not (thesis §4.1)."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """The entry that the membership comes from."""
        return self._memberships[-1][0]

    def membership_at(self, index: int) -> Membership:
        """The membership in force at an entry not older than the newest snapshot."""
        return next(membership for at, membership in reversed(self._memberships) if at <= index)

    @property
    def may_campaign(self) -> bool:
        """Whether this member can stand for election.

        Also one whose removal is in the log and not certain: nobody else may have an entry that it has, and then the
        group can't do without it until they do (thesis §4.2.2). Its own vote counts for nothing.
        """
        if self.unfit and not self.is_alone:
            return False
        if self.membership.is_voter(self.id):
            return True
        return self.membership_index > self.commit and self.membership_at(self.commit).is_voter(self.id)

    def was_removed(self, id: int) -> bool:
        """Whether a member was taken out for certain. Until then a leader that takes itself out is heard."""
        return self.membership.was_removed(id) and self.membership_at(self.commit).was_removed(id)

    @property
    def is_alone(self) -> bool:
        """Whether this member decides everything by itself."""
        return self.membership.voters == (self.id,)

    def has_majority(self, agreeing: set[int]) -> bool:
        voters = self.membership.voters
        return sum(voter in agreeing for voter in voters) * 2 > len(voters)

    def _note_membership(self, entry: Entry) -> None:
        if entry.kind is EntryKind.MEMBERSHIP:
            self._memberships.append((entry.index, Membership.decode(entry.data)))

    # The log

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Put entries into the log, in the place of what stood there."""
        self._forget_from(entries[0].index)
        self.log.append(entries)
        for entry in entries:
            self._note_membership(entry)

    def append_own(self, kind: EntryKind, data: bytes) -> Entry:
        entry = Entry(self.log.last_index + 1, self.term, kind, data)
        self.append((entry,))
        return entry

    def _forget_from(self, index: int) -> None:
        assert index > self.commit, "a committed entry would be replaced"
        self._unsaved_from = min(self._unsaved_from, index)
        self.stable_index = min(self.stable_index, index - 1)
        while self._memberships[-1][0] >= index and len(self._memberships) > 1:
            self._memberships.pop()

    def commit_to(self, index: int) -> None:
        self.commit = max(self.commit, min(index, self.log.last_index))

    @property
    def has_committed_in_term(self) -> bool:
        return self.log.term_at(self.commit) == self.term

    def replace_log(self, snapshot: SnapshotMeta) -> None:
        """Begin anew after a received snapshot."""
        self.log = RaftLog(snapshot.index, snapshot.term)
        self.snapshot = self._restore = snapshot
        self.commit = self._handed_out = snapshot.index
        self._memberships = [(snapshot.index, snapshot.membership)]
        self._unsaved_from = snapshot.index + 1
        self.stable_index = 0

    def take_snapshot(self, snapshot: SnapshotMeta, keep_from: int) -> None:
        """Forget what a snapshot of our own holds, but for what a member that catches up is about to ask for."""
        if snapshot.index <= self.snapshot.index:
            return
        self.snapshot = snapshot
        cut = min(keep_from - 1, snapshot.index, self.stable_index)
        needed = self.role.needed_from()
        if needed is not None and needed <= cut:
            first = max(needed, self.log.start_index + 1)
            size = sum(len(entry.data) for entry in self.log.between(first, cut))
            if size <= self.settings.max_kept_bytes:
                # Else who gets a snapshot while much is written would need the next one when it has that.
                cut = first - 1
        self.log.cut(cut)
        newer = [(index, membership) for index, membership in self._memberships if index > snapshot.index]
        self._memberships = [(snapshot.index, snapshot.membership), *newer]

    def take_back(self) -> int:
        """Forget what is not durable; for a member that is alone and has shown it to nobody. The first index gone."""
        self.log.truncate(self.stable_index)
        self._forget_from(self.stable_index + 1)
        self._unsaved_from = self.stable_index + 1
        self._under_way.clear()
        return self.stable_index + 1

    def persisted(self, number: int) -> None:
        before = self.stable_index
        while self._under_way and self._under_way[0][0] <= number:
            _, index, term = self._under_way.popleft()
            # Replaced meanwhile: then a later Persist holds what stands there now.
            if self.log.has(index, term):
                self.stable_index = max(self.stable_index, index)
        if self.stable_index > before:
            self.role.stable()

    # Effects

    def emit(self, effect: Effect) -> None:
        self._out.append(effect)

    def send(self, message: Message, *, needs_log: bool = False) -> None:
        """Send once the term and vote are durable; `needs_log`: and everything that is in the log."""
        self._sends.append((message, needs_log))

    def redraw_timeout(self) -> None:
        """Draw the wait until the next campaign, so that members seldom campaign at once (paper §5.2)."""
        self.silence = 0
        self.timeout = self.settings.election_tick + self._chance.randrange(self.settings.election_tick)

    def finish(self) -> list[Effect]:
        """The effects of the step."""
        effects, self._out = self._out, []
        now = (self.role.kind, self.term, self.leader)
        if now != self._announced:
            self._announced = now
            effects.append(Announce(*now))
        self._finish_persist(effects)
        for message, needs_log in self._sends:
            effects.append(Send(message, self._number if needs_log else self._term_number))
        self._sends.clear()
        if self._restore is not None:
            effects.append(Restore(self._restore, self._number))
            self._restore = None
        if self.commit > self._handed_out:
            entries = self.log.between(self._handed_out + 1, self.commit)
            self._handed_out = self.commit
            effects.append(Apply(entries, self._durable_with(entries[-1])))
        return effects

    def _finish_persist(self, effects: list[Effect]) -> None:
        last = self.log.last_index
        is_new_vote = self._saved != (self.term, self.vote)
        if not is_new_vote and self._unsaved_from > last and self._restore is None:
            return
        self._number += 1
        entries = self.log.between(self._unsaved_from, last)
        self._unsaved_from = last + 1
        if is_new_vote:
            self._saved = (self.term, self.vote)
            self._term_number = self._number
        self._under_way.append((self._number, last, self.log.last_term))
        hard_state = HardState(self.term, self.vote, self.commit)
        effects.append(Persist(number=self._number, hard_state=hard_state, entries=entries, snapshot=self._restore))

    def _durable_with(self, entry: Entry) -> int:
        """The Persist that makes an entry durable here."""
        if entry.index <= self.stable_index:
            return 0
        for number, index, _ in self._under_way:
            if index >= entry.index:
                return number
        return self._number
