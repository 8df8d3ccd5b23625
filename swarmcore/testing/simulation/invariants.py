"""What must hold at every moment, whatever happens (paper, figure 3), told of each step of each member."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from swarmcore.raft.machine import Raft
from swarmcore.raft.messages import Message, VoteReply, VoteRequest
from swarmcore.raft.types import Entry, EntryKind, SnapshotMeta
from swarmcore.store.store import Store

FENCE = b"fence of term "
"""What a leader's own writes hold, before the term in which they were made and a semicolon."""
_FENCE = re.compile(FENCE + rb"(\d+);")
DIGEST_EVERY = 8


@dataclass(slots=True)
class Invariants:
    """The whole truth about one run, which no member knows. `broken` is called with what does not hold."""

    broken: Callable[[str], None]
    running: Callable[[], Mapping[int, Raft]] = dict
    """The machines that run now, by id."""
    counts: Counter[str] = field(default_factory=Counter)
    leaders: dict[int, int] = field(default_factory=dict)
    agreed: dict[int, Entry] = field(default_factory=dict)
    _written: dict[tuple[int, int], tuple[EntryKind, bytes, int | None]] = field(default_factory=dict)
    _votes: dict[tuple[int, int], int] = field(default_factory=dict)
    _said: dict[int, int] = field(default_factory=dict)
    _states: dict[int, bytes] = field(default_factory=dict)
    _snapshots: dict[int, SnapshotMeta] = field(default_factory=dict)
    _last_agreed: int = 0

    def started(self, raft: Raft) -> None:
        """A member came back: with everything that it ever said it would remember."""
        said = self._said.get(raft.id, 0)
        self.counts["promises kept: checked"] += said > 0
        if raft.term < said:
            self.broken(f"member {raft.id} was in term {said}, and came back in term {raft.term}")
        vote = self._votes.get((raft.id, raft.term))
        if vote is not None and raft.vote != vote:
            self.broken(f"member {raft.id} voted for {vote} in term {raft.term}, and forgot it")

    def leads(self, raft: Raft) -> None:
        """Election safety and leader completeness."""
        first = self.leaders.setdefault(raft.term, raft.id)
        self.counts["election safety: checked"] += 1
        if first != raft.id:
            self.broken(f"election safety: members {first} and {raft.id} lead in term {raft.term}")
        if raft.term < max(self.leaders):
            return  # what later leaders agreed on, this one need not have
        for index in range(max(raft.log.start_index, 1), self._last_agreed + 1):
            entry = self.agreed.get(index)
            self.counts["leader completeness: checked"] += entry is not None
            if entry is not None and not raft.log.has(index, entry.term):
                self.broken(
                    f"leader completeness: member {raft.id} leads in term {raft.term} without entry {index} "
                    f"of term {entry.term}, which was agreed"
                )
                return

    def writes(self, raft: Raft, entries: tuple[Entry, ...]) -> None:
        """Log matching: what index and term an entry has says what it is and, by induction, all before it."""
        for entry in entries:
            what = (entry.kind, entry.data, raft.log.term_at(entry.index - 1))
            before = self._written.setdefault((entry.index, entry.term), what)
            self.counts["log matching: checked"] += before is not what
            if before != what and (before[:2] != what[:2] or None not in (before[2], what[2])):
                self.broken(f"log matching: two entries {entry.index} of term {entry.term}, or of what is before")

            if entry.kind is EntryKind.MEMBERSHIP and raft.is_leader and entry.term == raft.term:
                self._changes_membership(raft, entry)

    def _changes_membership(self, raft: Raft, entry: Entry) -> None:
        """One change at a time, and none before the leader's term has begun (thesis §4.1, and its erratum)."""
        if raft.membership_at(entry.index - 1) != raft.membership_at(raft.commit):
            self.broken(f"member {raft.id} changes the membership at entry {entry.index}, and the last is not agreed")
        if not raft.log.has(raft.commit, raft.term):
            self.broken(f"member {raft.id} changes the membership before it has committed anything in term {raft.term}")

    def takes_back(self, raft: Raft, index: int) -> None:
        """A member that is alone wrote what nobody saw, had no room for it, and may write something else there."""
        for place in [place for place in self._written if place[0] >= index and place[1] == raft.term]:
            del self._written[place]

    def sends(self, message: Message) -> None:
        """One vote in a term, and a word that is kept."""
        match message:
            case VoteReply(is_granted=True, is_pre=False):
                vote = self._votes.setdefault((message.sender, message.term), message.to)
                if vote != message.to:
                    self.broken(f"member {message.sender} voted for {vote} and {message.to} in term {message.term}")
            case VoteRequest(is_pre=True) | VoteReply(is_pre=True):
                return
            case VoteRequest():
                self._votes.setdefault((message.sender, message.term), message.sender)
        if message.term > self._said.get(message.sender, 0):
            self._said[message.sender] = message.term

    def applies(self, raft: Raft, entries: tuple[Entry, ...]) -> None:
        """State machine safety, and no write of an older term than that of its entry."""
        id, last = raft.id, entries[-1]
        if raft.is_leader and len(raft.membership.voters) > 1 and last.term != raft.term:
            # Figure 8 of the paper: it takes many coincidences for this to lose anything.
            self.broken(f"member {id} commits entry {last.index} of term {last.term} by counting, in term {raft.term}")
        if raft.is_leader:
            self._is_held_by_a_majority(raft, last)
        for entry in entries:
            agreed = self.agreed.setdefault(entry.index, entry)
            if agreed is not entry and agreed != entry:
                self.broken(
                    f"member {id} applies entry {entry.index} of term {entry.term}, "
                    f"and another one applied entry {agreed.index} of term {agreed.term} there"
                )
            self.counts["applied entries: compared"] += agreed is not entry
            for term in _FENCE.findall(entry.data):
                if int(term) != entry.term:
                    self.broken(f"a write of term {int(term)} was agreed in term {entry.term}")
        self._last_agreed = max(self._last_agreed, entries[-1].index)

    def _is_held_by_a_majority(self, raft: Raft, entry: Entry) -> None:
        """What a leader commits is on the disks of a majority of the voters (paper §5.3). Who is down may have it."""
        running = self.running()
        holders = 0
        for id in raft.membership.voters:
            holders += id not in running or _holds(running[id], entry)
        self.counts["commits: counted anew"] += 1
        if holders * 2 <= len(raft.membership.voters):
            self.broken(f"member {raft.id} commits entry {entry.index}, which {holders} voters have on their disks")

    def snapshot(self, id: int, snapshot: SnapshotMeta) -> None:
        """Two snapshots of one entry say the same of it."""
        if self._snapshots.setdefault(snapshot.index, snapshot) != snapshot:
            self.broken(f"member {id} has another snapshot of entry {snapshot.index} than one before")

    def state(self, id: int, store: Store) -> None:
        """Applied state is equal, byte by byte. Called when a store stands at an index."""
        digest = blake2b(b"".join(store.snapshot()), digest_size=16).digest()
        known = self._states.setdefault(store.version, digest)
        self.counts["applied state: compared"] += known is not digest
        if known != digest:
            self.broken(f"member {id} has another state at entry {store.version} than one before")


def _holds(raft: Raft, entry: Entry) -> bool:
    """Whether an entry is durable there, in the log or in a snapshot that others agreed to before."""
    is_in_log = raft.stable_index >= entry.index and raft.log.has(entry.index, entry.term)
    return is_in_log or raft.log.start_index > entry.index
