"""What the driver is to do: the output of `Raft.step`, in order.

`after` names the `Persist` that must be durable before the effect is carried out; one that is done already, or 0, makes
it due at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from swarmcore.raft.messages import Message
from swarmcore.raft.types import Entry, HardState, SnapshotMeta


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Make this durable, all of it together, after the `Persist` before; then report `Persisted(number)`.

    A snapshot takes the place of the whole log. Entries take the place of everything from the first one's index on.
    """

    number: int
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    snapshot: SnapshotMeta | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message; it may be lost, doubled or late."""

    message: Message
    after: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply committed entries. Each entry is handed out once, in order, between restarts."""

    entries: tuple[Entry, ...]
    after: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Replace the applied state by this received snapshot."""

    snapshot: SnapshotMeta
    after: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Role, term or known leader changed. `leader` is 0 when nobody is known to lead."""

    role: Role
    term: int
    leader: int


@dataclass(frozen=True, slots=True)
class Explain:
    """Tell the operator why this member leads no more, or is about to hand over, by its own decision."""

    reason: str


@dataclass(frozen=True, slots=True)
class Accept:
    """The proposal of this step is in the log of the leader: it is done once applied with this index and term."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The proposal, or the demand, of this step changed nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Drop every `Persist` that is not durable: entries from `index` on were never in the log."""

    index: int


@dataclass(frozen=True, slots=True)
class ServeRead:
    """The read may be answered from the applied state once it has reached `index`."""

    read: int
    index: int


@dataclass(frozen=True, slots=True)
class RefuseRead:
    """The read can't be answered: leadership was lost, or nobody leads. Ask again."""

    read: int


Effect: TypeAlias = (
    Persist | Send | Apply | Restore | Announce | Explain | Accept | Refuse | TakeBack | ServeRead | RefuseRead
)
