"""Several Raft members in memory, for readable scenarios: time passes, messages travel, links break, members crash.

Every step checks what must always hold (paper, figure 3): one leader in a term, logs that match, and one applied entry
for each index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from swarmcore.raft.effects import (
    Accept,
    Announce,
    Apply,
    Effect,
    Persist,
    Refuse,
    RefuseRead,
    Restore,
    Send,
    ServeRead,
    TakeBack,
)
from swarmcore.raft.events import (
    Event,
    MembershipProposed,
    Persisted,
    Proposed,
    Received,
    SnapshotSent,
    SnapshotTaken,
    Started,
    Ticked,
)
from swarmcore.raft.log import RaftLog, recovered
from swarmcore.raft.machine import FRESH, Raft
from swarmcore.raft.membership import Member, Membership, MembershipChange
from swarmcore.raft.messages import InstallSnapshot, Message
from swarmcore.raft.types import NO_ONE, NOTHING, Entry, EntryKind, HardState, Settings, SnapshotMeta


def voters(*ids: int) -> Membership:
    """A membership of these voters."""
    members = {id: Member(id=id, node_id=f"node-{id}", address=f"host-{id}:4242", is_voter=True) for id in ids}
    return Membership(members, max(ids))


@dataclass(slots=True)
class Storage:
    """What a member finds again after a crash."""

    hard_state: HardState = FRESH
    snapshot: SnapshotMeta = NOTHING
    snapshot_data: list[bytes] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def persist(self, persist: Persist) -> None:
        if persist.snapshot is not None:
            self.entries.clear()
            self.snapshot = persist.snapshot
        if persist.entries:
            first = persist.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first]
            self.entries.extend(persist.entries)
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state


class TestMember:
    """One machine, its storage, and what it has applied."""

    __test__ = False

    def __init__(self, id: int, storage: Storage, settings: Settings, chance: Random) -> None:
        self.id = id
        self.storage = storage
        self.raft = Raft(
            id=id,
            log=recovered(storage.snapshot.index, storage.snapshot.term, storage.entries),
            hard_state=storage.hard_state,
            snapshot=storage.snapshot,
            settings=settings,
            chance=chance,
        )
        self.applied_index = storage.snapshot.index
        self.data = list(storage.snapshot_data)
        """The data of every applied entry that has any."""
        self.is_disk_slow = False
        """While set, nothing becomes durable until `write`."""
        self.unwritten: deque[Persist] = deque()
        self.durable = 0
        self.held: list[Effect] = []
        self.served: dict[int, int] = {}
        self.refused_reads: list[int] = []
        self.answer: Accept | Refuse | None = None
        self.announced: list[Announce] = []
        self.received: dict[int, list[bytes]] = {}
        """Content of snapshots that arrived, by index."""


class Group:
    """The members and the network between them."""

    def __init__(
        self,
        *ids: int,
        members: Membership | None = None,
        settings: Settings | None = None,
        seed: int = 1,
    ) -> None:
        self.settings = settings or Settings()
        self.chance = Random(seed)
        self.network: deque[Message] = deque()
        self.cut: set[tuple[int, int]] = set()
        self.members: dict[int, TestMember] = {}
        self.leaders: dict[int, int] = {}
        self.agreed: dict[int, Entry] = {}
        self.contents: dict[int, list[bytes]] = {}
        """What each snapshot holds, by index; the same whoever took it."""
        membership = members or voters(*ids)
        for id in ids:
            first = Entry(1, 1, EntryKind.MEMBERSHIP, membership.encode())
            self.start(id, Storage(HardState(1, NO_ONE, 1), entries=[first]))

    def __getitem__(self, id: int) -> Raft:
        return self.members[id].raft

    # Members

    def start(self, id: int, storage: Storage) -> None:
        self.members[id] = TestMember(id, storage, self.settings, self.chance)
        self.step(id, Started())

    def crash(self, id: int) -> Storage:
        """Stop a member; only what is durable is left of it."""
        return self.members.pop(id).storage

    def restart(self, id: int) -> None:
        self.start(id, self.crash(id))

    def join(self, id: int) -> None:
        """Start a member that knows nothing yet."""
        self.start(id, Storage())

    # Steps

    def step(self, id: int, event: Event) -> list[Effect]:
        member = self.members[id]
        effects = member.raft.step(event)
        for effect in effects:
            self._carry_out(member, effect)
        if not member.is_disk_slow:
            self.write(id)
        if member.raft.is_leader:
            assert self.leaders.setdefault(member.raft.term, id) == id, "two leaders in one term"
        return effects

    def _carry_out(self, member: TestMember, effect: Effect) -> None:
        match effect:
            case Persist():
                member.unwritten.append(effect)
            case Send(after=after) | Apply(after=after) | Restore(after=after) if after > member.durable:
                member.held.append(effect)
            case Send():
                self.network.append(effect.message)
            case Apply():
                for entry in effect.entries:
                    self._apply(member, entry)
            case Restore():
                member.applied_index = effect.snapshot.index
                member.data = list(member.received[effect.snapshot.index])
                member.storage.snapshot_data = list(member.data)
            case Accept() | Refuse():
                member.answer = effect
            case ServeRead():
                member.served[effect.read] = effect.index
            case RefuseRead():
                member.refused_reads.append(effect.read)
            case Announce():
                member.announced.append(effect)
            case TakeBack():
                member.unwritten.clear()

    def _apply(self, member: TestMember, entry: Entry) -> None:
        assert entry.index == member.applied_index + 1, "an entry was skipped, or applied twice"
        assert self.agreed.setdefault(entry.index, entry) == entry, "two members applied different entries"
        member.applied_index = entry.index
        if entry.kind is EntryKind.NORMAL and entry.data:
            member.data.append(entry.data)

    def write(self, id: int) -> None:
        """Let everything that a member wants durable become so."""
        member = self.members[id]
        while member.unwritten:
            persist = member.unwritten.popleft()
            member.storage.persist(persist)
            member.durable = persist.number
            held, member.held = member.held, []
            for effect in held:
                self._carry_out(member, effect)
            self.step(id, Persisted(persist.number))

    # The network

    def isolate(self, *ids: int) -> None:
        """Cut these members off from all the others, but not from one another."""
        others = set(self.members) - set(ids)
        self.cut |= {(one, other) for one in ids for other in others}
        self.cut |= {(other, one) for one in ids for other in others}

    def heal(self) -> None:
        self.cut.clear()

    def deliver_one(self, *, is_lost: bool = False) -> None:
        """Deliver, or lose, what was sent first. Who sends a snapshot always learns what became of it."""
        message = self.network.popleft()
        receiver = self.members.get(message.to)
        is_lost = is_lost or receiver is None or (message.sender, message.to) in self.cut
        if isinstance(message, InstallSnapshot) and message.sender in self.members:
            if not is_lost:
                assert receiver is not None
                receiver.received[message.snapshot.index] = self.contents[message.snapshot.index]
            self.step(message.sender, SnapshotSent(message.to, not is_lost))
        if not is_lost:
            self.step(message.to, Received(message))

    def settle(self, limit: int = 100_000) -> None:
        """Deliver until nothing is under way."""
        for _ in range(limit):
            if not self.network:
                self.check_logs()
                return
            self.deliver_one()
        raise AssertionError("messages without end")

    def tick(self, ids: Iterable[int] | None = None, times: int = 1) -> None:
        """Time passes for these members (else for all), and messages travel."""
        for _ in range(times):
            for id in list(self.members if ids is None else ids):
                self.step(id, Ticked())
            self.settle()

    # What scenarios ask

    def elect(self, id: int) -> None:
        """Make `id` the leader, by its own silence alone."""
        for _ in range(100):
            if self[id].is_leader:
                return
            self.tick([id])
            if not self[id].is_leader and self[id].leader:
                self.tick([other for other in self.members if other != id], self.settings.election_tick)
        raise AssertionError(f"member {id} was not elected")

    @property
    def leader(self) -> int | None:
        """The leader of the highest term, of those who think they lead."""
        leading = [(member.raft.term, id) for id, member in self.members.items() if member.raft.is_leader]
        return max(leading)[1] if leading else None

    def propose(self, id: int, *data: str) -> Accept | Refuse | None:
        """Propose, and let it be agreed as far as it can be."""
        answer = None
        for one in data:
            self.members[id].answer = None
            self.step(id, Proposed(one.encode()))
            answer = self.members[id].answer
        self.settle()
        return answer

    def change(self, id: int, change: MembershipChange) -> Accept | Refuse | None:
        self.step(id, MembershipProposed(change))
        answer = self.members[id].answer
        self.settle()
        return answer

    def snapshot(self, id: int, keep: int = 0) -> None:
        """Let a member take a snapshot of what it has applied, and keep so many entries before it."""
        member = self.members[id]
        index = member.applied_index
        term = member.raft.log.term_at(index)
        assert term is not None
        taken = SnapshotMeta(index=index, term=term, membership=member.raft.membership_at(index))
        content = list(member.data)
        assert self.contents.setdefault(index, content) == content, "two snapshots of one entry differ"
        member.storage.snapshot, member.storage.snapshot_data = taken, content
        member.storage.entries = [entry for entry in member.storage.entries if entry.index > index - keep]
        self.step(id, SnapshotTaken(taken, index - keep + 1))

    def data(self, id: int) -> list[str]:
        return [one.decode() for one in self.members[id].data]

    def check_logs(self) -> None:
        """Two logs that hold an entry of the same index and term are equal up to there (paper §5.3)."""
        logs: list[RaftLog] = [member.raft.log for member in self.members.values()]
        for one, other in pairwise(logs):
            equal = False
            for index in range(min(one.last_index, other.last_index), max(one.start_index, other.start_index), -1):
                equal = equal or one.term_at(index) == other.term_at(index)
                assert not equal or one.between(index, index) == other.between(index, index)
