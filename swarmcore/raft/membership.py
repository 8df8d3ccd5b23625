"""Who belongs to the group: one immutable value, changed one member at a time (thesis §4.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

MAX_FORMER = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One manager. A learner receives everything and counts for nothing."""

    id: int
    node_id: str
    address: str
    is_voter: bool


@dataclass(frozen=True, slots=True)
class AddLearner:
    """Let a manager in; it gets the next id and becomes a voter by a change of its own, when it has caught up."""

    node_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a learner a voter."""

    id: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a member out, for good."""

    id: int


@dataclass(frozen=True, slots=True)
class Move:
    """Note that a member is at another address."""

    id: int
    address: str


MembershipChange: TypeAlias = AddLearner | Promote | Remove | Move


@dataclass(frozen=True, slots=True)
class Membership:
    """All members by id.

    Ids are given out in order, so that an id up to `last_id` that is no member's was removed: this says for ever who
    may not come back without growing with history.
    """

    members: Mapping[int, Member] = field(default_factory=lambda: MappingProxyType({}))
    last_id: int = 0
    group: str = ""
    """Which group this is: empty for the one that a cluster was founded with, a name of its own for one made anew."""
    replaced: tuple[str, ...] = ()
    """The groups whose place this one took, oldest first: whoever is still in one of them may not come back."""
    former: tuple[str, ...] = ()
    """Where members of those groups were."""

    @classmethod
    def single(cls, node_id: str, address: str) -> Membership:
        """The membership that a cluster begins with: one voter, with id 1."""
        return cls({1: Member(id=1, node_id=node_id, address=address, is_voter=True)}, 1)

    def made_anew(self, *, id: int, node_id: str, address: str, group: str) -> Membership:
        """The membership of a new group that goes on with this one's history: one voter, and nobody else may return.

        `group` has to be a name that nobody else can come to: two groups made of one old group are strangers.
        """
        member = Member(id=id, node_id=node_id, address=address, is_voter=True)
        others = [each.address for each in self.members.values() if each.node_id != node_id and each.address]
        former = tuple(dict.fromkeys((*self.former, *others)))[-MAX_FORMER:]
        return Membership({id: member}, max(id, self.last_id), group, (*self.replaced, self.group), former)

    @property
    def voters(self) -> tuple[int, ...]:
        return tuple(member.id for member in self.members.values() if member.is_voter)

    def __contains__(self, id: object) -> bool:
        return id in self.members

    def is_voter(self, id: int) -> bool:
        member = self.members.get(id)
        return member is not None and member.is_voter

    def was_removed(self, id: int) -> bool:
        return 0 < id <= self.last_id and id not in self.members

    def after(self, change: MembershipChange) -> Membership | str:
        """The membership with one change made, or why it can't be."""
        members = dict(self.members)
        match change:
            case AddLearner(node_id, address):
                if any(member.node_id == node_id for member in members.values()):
                    return f"node {node_id!r} is a member already"
                id = self.last_id + 1
                members[id] = Member(id=id, node_id=node_id, address=address, is_voter=False)
                return replace(self, members=members, last_id=id)
            case Promote(id) | Remove(id) | Move(id) if id not in members:
                return f"there is no member {id}"
            case Promote(id):
                if members[id].is_voter:
                    return f"member {id} is a voter already"
                members[id] = replace(members[id], is_voter=True)
            case Remove(id):
                if self.voters == (id,):
                    return "the last voter can't be removed"
                del members[id]
            case Move(id, address):
                members[id] = replace(members[id], address=address)
        return replace(self, members=members)

    def encode(self) -> bytes:
        """The data of a membership entry; equal values give equal bytes."""
        members = [[m.id, m.node_id, m.address, m.is_voter] for m in self.members.values()]
        file: dict[str, object] = {"last_id": self.last_id, "members": members}
        if self.group:
            file.update(group=self.group, replaced=list(self.replaced), former=list(self.former))
        return json.dumps(file, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Membership:
        """Read what `encode` wrote. Raises ValueError."""
        try:
            file = json.loads(data)
            members = {
                int(id): Member(id=int(id), node_id=str(node_id), address=str(address), is_voter=bool(is_voter))
                for id, node_id, address, is_voter in file["members"]
            }
            replaced = tuple(str(group) for group in file.get("replaced", ()))
            former = tuple(str(address) for address in file.get("former", ()))
            return cls(members, int(file["last_id"]), str(file.get("group", "")), replaced, former)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a membership: {error}") from error
