"""What can happen to a member: the input of `Raft.step`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from swarmcore.raft.membership import MembershipChange
from swarmcore.raft.messages import Message
from swarmcore.raft.types import SnapshotMeta


@dataclass(frozen=True, slots=True)
class Started:
    """The first event: what is known to be committed is applied, and the only voter of a group campaigns at once."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """One tick of time has passed."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived. For InstallSnapshot: with all its content, which the driver keeps until it is told."""

    message: Message


@dataclass(frozen=True, slots=True)
class Proposed:
    """Somebody here wants `data` in the log. The answer is `Accept` or `Refuse`, among the effects."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MembershipProposed:
    """Somebody here wants the membership changed. The answer is `Accept` or `Refuse`."""

    change: MembershipChange


@dataclass(frozen=True, slots=True)
class Persisted:
    """The `Persist` of this number, and all before it, are durable."""

    number: int


@dataclass(frozen=True, slots=True)
class PersistRefused:
    """The disk had no room for this `Persist` and nothing of it is there. It stays owed, unless taken back.

    A leader that is alone forgets the entries: nobody else has seen them. Then the effects say `TakeBack`.
    """

    number: int


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The driver has a durable snapshot; the log may forget what is before `keep_from`."""

    snapshot: SnapshotMeta
    keep_from: int


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """The content of a snapshot has been delivered to a member, or could not be.

    Owed for each InstallSnapshot sent, within a deadline on its progress: until then the member gets no entries.
    """

    to: int
    is_delivered: bool


@dataclass(frozen=True, slots=True)
class MemberUnreachable:
    """Messages to a member may have been lost."""

    id: int


@dataclass(frozen=True, slots=True)
class MemberGone:
    """A member's process has ended, as far as this one can see: its connection broke and nobody listens there.

    Where it led, there is nothing to wait for. A mistake costs a question that the others refuse.
    """

    id: int


@dataclass(frozen=True, slots=True)
class CampaignDemanded:
    """Stand for election now, without waiting for silence."""


@dataclass(frozen=True, slots=True)
class TransferDemanded:
    """Hand leadership over to a voter that is up to date. Given up after one election timeout."""

    to: int


@dataclass(frozen=True, slots=True)
class FitnessJudged:
    """The driver's word on whether this member can do what a leader must; empty `why_not`: it can.

    Who can't does not campaign. A leader that can't lets another voter lead, and after one election timeout it follows
    whether one took over or not. Who decides alone goes on: nobody else could.
    """

    why_not: str


@dataclass(frozen=True, slots=True)
class StoodStill:
    """No time passed here while it did elsewhere, for longer than an election: somebody else may lead by now."""


@dataclass(frozen=True, slots=True)
class ReadDemanded:
    """A linearizable read, known to the driver as `read`. The answer is `ServeRead` or `RefuseRead`, later perhaps."""

    read: int


Event: TypeAlias = (
    Started
    | Ticked
    | Received
    | Proposed
    | MembershipProposed
    | Persisted
    | PersistRefused
    | SnapshotTaken
    | SnapshotSent
    | MemberUnreachable
    | MemberGone
    | CampaignDemanded
    | TransferDemanded
    | FitnessJudged
    | StoodStill
    | ReadDemanded
)
