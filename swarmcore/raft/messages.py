"""What members say to each other. Every message names its sender, its receiver and the sender's term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from swarmcore.raft.types import Entry, SnapshotMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRequest:
    """Please vote for me. With `is_pre`: would you (thesis §9.6)? Then `term` is the one that would follow."""

    sender: int
    to: int
    term: int
    last_index: int
    last_term: int
    is_pre: bool = False
    is_transfer: bool = False
    """The leader itself asked for this election, so that its lease does not stand against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteReply:
    sender: int
    to: int
    term: int
    is_granted: bool
    is_pre: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendRequest:
    """Entries to stand after `previous_index`, whose term is `previous_term`."""

    sender: int
    to: int
    term: int
    previous_index: int
    previous_term: int
    entries: tuple[Entry, ...]
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendReply:
    """Accepted: the log equals the leader's up to `index`. Refused: it has no such entry as `previous_index`.

    A refusal hints at the last place where the logs may agree (paper §5.3, the optimisation by terms).
    """

    sender: int
    to: int
    term: int
    is_accepted: bool
    index: int
    hint_index: int = 0
    hint_term: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """I lead. `round` is given back in the reply, and confirms reads."""

    sender: int
    to: int
    term: int
    commit: int
    round: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    sender: int
    to: int
    term: int
    round: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSnapshot:
    """What you lack is gone from my log: take this instead. The driver sends the content along, in chunks."""

    sender: int
    to: int
    term: int
    snapshot: SnapshotMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutNow:
    """Campaign at once: you are to lead (thesis §3.10)."""

    sender: int
    to: int
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """A follower asks from which index on its own state answers a linearizable read."""

    sender: int
    to: int
    term: int
    read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReply:
    sender: int
    to: int
    term: int
    read: int
    index: int


Message: TypeAlias = (
    VoteRequest
    | VoteReply
    | AppendRequest
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | InstallSnapshot
    | TimeoutNow
    | ReadRequest
    | ReadReply
)
