"""The values that the log is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from swarmcore.raft.membership import Membership

NO_ONE = 0
"""The id of no member."""


class EntryKind(IntEnum):
    """What the data of an entry means. The numbers are on disk."""

    NORMAL = 0
    """Opaque; empty for the entry that a new leader begins its term with."""
    MEMBERSHIP = 1
    """A whole `Membership`, in force from the moment the entry is in the log."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of the log."""

    index: int
    term: int
    kind: EntryKind
    data: bytes


@dataclass(frozen=True, slots=True)
class HardState:
    """What a member must remember over a crash. `commit` may lag behind: it only saves work."""

    term: int
    vote: int
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotMeta:
    """Which entry a snapshot ends with, and the membership in force there. Its content is the driver's."""

    index: int
    term: int
    membership: Membership


NOTHING = SnapshotMeta(index=0, term=0, membership=Membership())
"""The snapshot of a log that was never cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The machine's measures; times in ticks."""

    election_tick: int = 10
    """Silence after which a follower may campaign; the actual wait is drawn from here up to twice this."""
    heartbeat_tick: int = 1
    max_message_bytes: int = 1024 * 1024
    """Entry data in one append message, but for a single larger entry."""
    max_inflight: int = 256
    """Append messages under way to one member."""
    max_inflight_bytes: int = 8 * 1024 * 1024
    """Entry data under way to one member, but for what the last message adds: what a member that lags may cost."""
    max_kept_bytes: int = 0
    """Entry data that stays in the log behind a snapshot for members that are there and lag."""
