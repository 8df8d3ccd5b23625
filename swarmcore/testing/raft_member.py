"""One Raft member by itself: made with a log of given terms, given messages, and asked for its effects."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from swarmcore.raft.effects import Effect, Send
from swarmcore.raft.events import Started
from swarmcore.raft.log import RaftLog
from swarmcore.raft.machine import Raft
from swarmcore.raft.messages import AppendRequest, Message, VoteRequest
from swarmcore.raft.types import NO_ONE, Entry, EntryKind, HardState
from swarmcore.testing.raft_group import voters

E = TypeVar("E")


def member(
    *terms: int, id: int = 1, term: int | None = None, vote: int = NO_ONE, group: tuple[int, ...] = (1, 2, 3)
) -> Raft:
    """A member whose log holds entries of these terms, after the membership, which is entry 1 of term 1."""
    first = Entry(1, 1, EntryKind.MEMBERSHIP, voters(*group).encode())
    entries = [first, *(Entry(index, at, EntryKind.NORMAL, b"%d" % index) for index, at in enumerate(terms, 2))]
    current = max(1, *terms) if term is None and terms else (term or 1)
    raft = Raft(id=id, log=RaftLog(0, 0, entries), hard_state=HardState(current, vote, 1), chance=Random(1))
    if len(group) > 1:
        raft.step(Started())
    return raft


def only(kind: type[E], effects: list[Effect]) -> E:
    """The one effect of that kind."""
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def sent(effects: list[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def vote_request(term: int, last_index: int, last_term: int, *, sender: int = 2, is_pre: bool = False) -> VoteRequest:
    return VoteRequest(sender=sender, to=1, term=term, last_index=last_index, last_term=last_term, is_pre=is_pre)


def append(term: int, previous: tuple[int, int], *terms: int, commit: int = 0, sender: int = 2) -> AppendRequest:
    index, previous_term = previous
    entries = tuple(Entry(at, t, EntryKind.NORMAL, b"new") for at, t in enumerate(terms, index + 1))
    return AppendRequest(
        sender=sender,
        to=1,
        term=term,
        previous_index=index,
        previous_term=previous_term,
        entries=entries,
        commit=commit,
    )
