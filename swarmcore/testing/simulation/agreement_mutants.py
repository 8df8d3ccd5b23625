"""Mistakes in the Raft machine, and in what drives it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from swarmcore.raft.candidate import Candidate
from swarmcore.raft.core import Core
from swarmcore.raft.effects import Apply, Restore, Send
from swarmcore.raft.follower import Follower
from swarmcore.raft.leader import Leader, _Read
from swarmcore.raft.log import RaftLog
from swarmcore.raft.machine import Raft
from swarmcore.raft.messages import (
    AppendReply,
    AppendRequest,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    VoteReply,
    VoteRequest,
)
from swarmcore.raft.types import NO_ONE, EntryKind, HardState
from swarmcore.replication.applier import Applier
from swarmcore.replication.write_queue import WriteQueue
from swarmcore.store.store import LeaderStore, Store
from swarmcore.testing.simulation.mutants import around, method, mutant

# Votes


@mutant
def vote_not_synced() -> list[Any]:
    """A vote leaves before it is on disk."""

    def finish(real: Any, self: Core) -> Any:
        return [
            Send(effect.message, 0) if isinstance(effect, Send) and isinstance(effect.message, VoteReply) else effect
            for effect in real(self)
        ]

    return [around(Core, "finish", finish)]


@mutant
def vote_forgotten() -> list[Any]:
    """A vote is not part of what is written."""

    def finish(real: Any, self: Core, effects: list[Any]) -> None:
        real(self, effects)
        for at, effect in enumerate(effects):
            if getattr(effect, "hard_state", None) is not None:
                old = effect.hard_state
                effects[at] = replace(effect, hard_state=HardState(old.term, NO_ONE, old.commit))

    return [around(Core, "_finish_persist", finish)]


@mutant
def two_votes_in_a_term() -> list[Any]:
    """Whoever asks gets the vote."""

    def on_vote_request(real: Any, self: Raft, ask: VoteRequest) -> None:
        self.vote, self.leader = NO_ONE, NO_ONE
        real(self, ask)

    return [around(Raft, "_on_vote_request", on_vote_request)]


@mutant
def vote_for_a_shorter_log() -> list[Any]:
    """A vote is given without a look at the candidate's log (paper §5.4.1)."""
    return [method(RaftLog, "is_current", lambda self, index, term: True)]


@mutant
def log_compared_by_length_alone() -> list[Any]:
    """The longer log wins, whatever its last term."""
    return [method(RaftLog, "is_current", lambda self, index, term: index >= self.last_index)]


@mutant
def pre_vote_counted_as_vote() -> list[Any]:
    """An answer to the question before an election counts in the election."""

    def receive(self: Candidate, message: Any) -> None:
        if isinstance(message, VoteReply):
            (self._granted if message.is_granted else self._refused).add(message.sender)
            self._maybe_end()

    return [method(Candidate, "receive", receive)]


@mutant
def candidate_wins_with_half() -> list[Any]:
    """Half of the voters are taken for a majority."""

    def has_majority(self: Core, agreeing: set[int]) -> bool:
        voters = self.membership.voters
        return sum(voter in agreeing for voter in voters) * 2 >= len(voters)

    return [method(Core, "has_majority", has_majority)]


# Commitment


def _maybe_commit(index_of: Any, *, checks_term: bool = True) -> Any:
    def maybe_commit(self: Leader) -> bool:
        core = self._core
        index = index_of(self)
        if index <= core.commit or (checks_term and core.log.term_at(index) != core.term):
            return False
        core.commit_to(index)
        self._broadcast()
        if core.id not in core.membership and core.membership_index <= core.commit:
            core.become_follower(core.term, NO_ONE)
            return True
        for member, read in self._early_reads:
            self._read(member, read)
        self._early_reads.clear()
        return True

    return maybe_commit


def _held(self: Leader, ids: Any, own: int | None = None) -> list[int]:
    core = self._core
    mine = core.stable_index if own is None else own
    return sorted(mine if id == core.id else self.progress[id].match for id in ids)


@mutant
def old_term_entries_counted() -> list[Any]:
    """Entries of older terms are committed by counting (paper, figure 8)."""

    def index(self: Leader) -> int:
        held = _held(self, self._core.membership.voters)
        return held[(len(held) - 1) // 2]

    return [method(Leader, "_maybe_commit", _maybe_commit(index, checks_term=False))]


@mutant
def learner_counted() -> list[Any]:
    """What a learner holds counts for the majority of the voters."""

    def index(self: Leader) -> int:
        held = _held(self, self._core.membership.members)
        return held[max(0, len(held) - 1 - len(self._core.membership.voters) // 2)]

    return [method(Leader, "_maybe_commit", _maybe_commit(index))]


@mutant
def committed_by_a_minority() -> list[Any]:
    """One member less than a majority suffices."""

    def index(self: Leader) -> int:
        held = _held(self, self._core.membership.voters)
        return held[min(len(held) - 1, (len(held) - 1) // 2 + 1)]

    return [method(Leader, "_maybe_commit", _maybe_commit(index))]


@mutant
def leader_counts_what_it_has_not_written() -> list[Any]:
    """The leader's own log counts before it is on its disk."""

    def index(self: Leader) -> int:
        held = _held(self, self._core.membership.voters, self._core.log.last_index)
        return held[(len(held) - 1) // 2]

    def propose(real: Any, self: Leader, kind: EntryKind, data: bytes) -> None:
        real(self, kind, data)
        self._maybe_commit()

    return [method(Leader, "_maybe_commit", _maybe_commit(index)), around(Leader, "propose", propose)]


@mutant
def heartbeat_commits_too_much() -> list[Any]:
    """A heartbeat says how much is committed to members that may hold something else there."""

    def beat(self: Leader) -> None:
        core = self._core
        for id in self.progress:
            core.send(Heartbeat(sender=core.id, to=id, term=core.term, commit=core.commit, round=self._round))

    return [method(Leader, "_beat", beat)]


@mutant
def append_commits_too_much() -> list[Any]:
    """A follower commits as far as the leader, also what it did not get from it."""

    def append(real: Any, self: Follower, request: AppendRequest) -> None:
        real(self, request)
        if self._core.log.has(request.previous_index, request.previous_term):
            self._core.commit_to(request.commit)

    return [around(Follower, "_append", append)]


# Replication


@mutant
def acknowledged_before_it_is_written() -> list[Any]:
    """A follower accepts entries before they are on its disk."""

    def finish(real: Any, self: Core) -> Any:
        return [
            Send(effect.message, 0) if isinstance(effect, Send) and isinstance(effect.message, AppendReply) else effect
            for effect in real(self)
        ]

    return [around(Core, "finish", finish)]


@mutant
def conflicting_tail_kept() -> list[Any]:
    """Entries behind a conflict stay in the log."""

    def append(self: RaftLog, entries: Any) -> None:
        position = entries[0].index - self.start_index - 1
        self._entries[position : position + len(entries)] = entries

    return [method(RaftLog, "append", append)]


@mutant
def old_append_truncates() -> list[Any]:
    """A late message cuts off what came after it, though there is no conflict."""
    return [method(RaftLog, "conflict", lambda self, entries: 0)]


@mutant
def previous_entry_not_compared() -> list[Any]:
    """Entries are taken whatever stands before them, if only something does."""

    def append(real: Any, self: Follower, request: AppendRequest) -> None:
        term = self._core.log.term_at(request.previous_index)
        real(self, request if term is None else replace(request, previous_term=term))

    return [around(Follower, "_append", append)]


@mutant
def messages_of_older_terms_heard() -> list[Any]:
    """What was said in an older term is taken for said in this one."""

    def receive(real: Any, self: Raft, message: Any) -> None:
        if message.term < self.term and not isinstance(message, VoteRequest):
            message = replace(message, term=self.term)
        real(self, message)

    return [around(Raft, "_receive", receive)]


@mutant
def snapshot_over_a_newer_log() -> list[Any]:
    """A late snapshot takes the place of a log that is ahead of it."""

    def install(self: Follower, request: InstallSnapshot) -> None:
        self._core.silence = 0
        self._core.replace_log(request.snapshot)
        self._accept(request.sender, request.snapshot.index)

    return [method(Follower, "_install", install)]


# Membership


@mutant
def two_membership_changes_at_once() -> list[Any]:
    """A change is begun before the last one is committed (thesis §4.1)."""

    def propose(real: Any, self: Leader, event: Any) -> None:
        core = self._core
        noted, core._memberships = core._memberships, [(0, core.membership)]
        real(self, event)
        core._memberships = noted + core._memberships[1:]

    return [around(Leader, "propose_membership", propose)]


@mutant
def membership_change_before_the_own_term() -> list[Any]:
    """A leader changes the membership before it has committed anything of its term (the erratum to the thesis)."""

    def propose(real: Any, self: Leader, event: Any) -> None:
        with _has_committed:
            real(self, event)

    _has_committed = method(Core, "has_committed_in_term", True)
    return [around(Leader, "propose_membership", propose)]


@mutant
def snapshot_with_the_newest_membership() -> list[Any]:
    """A snapshot says who is a member now, not who was at its entry."""
    return [method(Core, "membership_at", lambda self, index: self.membership)]


# Reads


@mutant
def stale_read() -> list[Any]:
    """A leader answers a read without asking whether it still leads."""

    def read(self: Leader, member: int, read: int) -> None:
        self._serve(_Read(0, self._core.commit, member, read))

    return [method(Leader, "_read", read)]


@mutant
def read_confirmed_by_an_older_heartbeat() -> list[Any]:
    """Any answer confirms every read."""

    def on_heartbeat_reply(real: Any, self: Leader, reply: HeartbeatReply, progress: Any) -> None:
        real(self, replace(reply, round=self._round), progress)

    return [around(Leader, "_on_heartbeat_reply", on_heartbeat_reply)]


@mutant
def read_before_the_own_term() -> list[Any]:
    """A new leader answers reads before it knows how much is committed."""

    def read(real: Any, self: Leader, member: int, read: int) -> None:
        with _has_committed:
            real(self, member, read)

    _has_committed = method(Core, "has_committed_in_term", True)
    return [around(Leader, "_read", read)]


@mutant
def read_before_it_is_applied() -> list[Any]:
    """A read does not wait until the store has what it must show."""

    async def wait(self: Applier, index: int) -> None:
        await asyncio.sleep(0)

    return [method(Applier, "wait", wait)]


# The driver


@mutant
def durable_before_it_is_written() -> list[Any]:
    """The machine is told that something is durable when it is only queued."""

    def put(real: Any, self: WriteQueue, persist: Any) -> None:
        asyncio.get_running_loop().call_soon(self._written, persist.number)
        real(self, persist)

    return [around(WriteQueue, "put", put)]


@mutant
def applied_before_it_is_durable() -> list[Any]:
    """Entries are applied, and their writers told, when a majority holds them in memory."""

    def finish(real: Any, self: Core) -> Any:
        return [replace(effect, after=0) if isinstance(effect, Apply | Restore) else effect for effect in real(self)]

    def accept(real: Any, self: Core, message: Any, *, needs_log: bool = False) -> None:
        real(self, message)

    return [around(Core, "finish", finish), around(Core, "send", accept)]


@mutant
def another_entry_acknowledges() -> list[Any]:
    """A write is acknowledged when anything is applied at its index."""

    def apply(real: Any, self: Applier, entry: Any) -> None:
        expected = self._expected.get(entry.index)
        if expected is not None and expected.term != entry.term:
            self._expected.pop(entry.index)
            if not expected.done.done():
                expected.done.set_result(None)
        real(self, entry)

    def lose(self: Applier, error: Any, first: int = 0) -> None:
        """Nobody is told."""

    return [around(Applier, "_apply", apply), method(Applier, "lose", lose)]


@mutant
def lost_writes_acknowledged() -> list[Any]:
    """Losing leadership counts as success for the writes under way."""

    def lose(self: Applier, error: Any, first: int = 0) -> None:
        for index in [index for index in self._expected if index >= first]:
            done = self._expected.pop(index).done
            if not done.done():
                done.set_result(None)

    return [method(Applier, "lose", lose)]


@mutant
def write_of_an_older_term() -> list[Any]:
    """A leader's part writes on in a term that is not its own."""

    async def update(self: LeaderStore, write: Any) -> Any:
        return await self._store.update(write)

    return [method(LeaderStore, "update", update)]


@mutant
def own_write_differs_from_its_entry() -> list[Any]:
    """The leader applies its own writes in another order than the entry says."""

    def apply(real: Any, self: Store, index: int, data: bytes, token: Any = None) -> None:
        if token is not None and len(token.changes) > 1:
            token = replace(token, changes=tuple(reversed(token.changes)))
        real(self, index, data, token)

    return [around(Store, "apply", apply)]
