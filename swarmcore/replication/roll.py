"""Who is there of the managers, as one of them sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarmcore.api.types_pb2 import RaftMemberStatus
from swarmcore.clock import Clock
from swarmcore.raft.machine import Raft


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerMember:
    """One manager, as the membership knows it (`controlapi.cluster_ops.MemberLike`)."""

    raft_id: int
    node_id: str
    address: str
    reachability: int
    is_leader: bool


class Roll:
    """The membership, and who of it was heard within an election timeout."""

    def __init__(self, raft: Raft, clock: Clock, election_seconds: float) -> None:
        self._raft = raft
        self._clock = clock
        self._election_seconds = election_seconds
        self._heard: dict[int, float] = {}
        """When each member last said something."""

    def hears(self, id: int) -> None:
        """A member said something."""
        self._heard[id] = self._clock.monotonic()

    @property
    def _there(self) -> set[int]:
        since = self._clock.monotonic() - self._election_seconds
        return self._raft.active_members | {id for id, heard in self._heard.items() if heard >= since}

    def members(self) -> Sequence[ManagerMember]:
        """All managers, by id."""
        there = self._there
        return [
            ManagerMember(
                raft_id=member.id,
                node_id=member.node_id,
                address=member.address,
                reachability=RaftMemberStatus.REACHABLE if member.id in there else RaftMemberStatus.UNREACHABLE,
                is_leader=member.id == self._raft.leader,
            )
            for member in self._raft.membership.members.values()
        ]

    def who_is_missing(self) -> str:
        """How many managers have to be there for a write, and which ones are silent."""
        membership, there = self._raft.membership, self._there
        voters = membership.voters
        silent = [membership.members[id].address for id in voters if id not in there]
        return (
            f"{len(voters) // 2 + 1} of {len(voters)} managers must be online; "
            f"not heard from: {', '.join(silent) or 'none'}"
        )
