"""Which nodes are still there: heartbeat periods, leases, the limit on registrations. Pure: `now` is an argument."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from random import Random

DEFAULT_PERIOD = 5.0
PERIOD_SPREAD = 0.5
GRACE_PERIODS = 3
UNKNOWN_GRACE_PERIODS = 6
ORPHAN_SECONDS = 24 * 3600.0
MAX_HEARTBEATS_PER_SECOND = 100
MAX_REGISTRATIONS = 3
REGISTRATION_WINDOW = 8.0
MAX_STALL = 1.0


def heartbeat_period(configured: float, nodes: int, rng: Random) -> float:
    """Seconds until the next heartbeat of one node (SwarmKit: 8.3).

    The configured period ± 0.5 s, so that nodes don't fall into step. With more than 100 nodes for each second of
    the period it is stretched to `nodes / 100`: heartbeats never cost more than 100 calls a second (about 7 % of a
    core), and 1 000 nodes beat every 10 s rather than every 5. Grace is counted in periods, so it grows alike.
    """
    period = max(configured if configured > 0 else DEFAULT_PERIOD, nodes / MAX_HEARTBEATS_PER_SECOND)
    spread = min(PERIOD_SPREAD, period / 2)
    return period + rng.uniform(-spread, spread)


class LeaseKind(Enum):
    """What it means when a lease runs out."""

    SESSION = "session"
    UNKNOWN = "unknown"
    ORPHAN = "orphan"


@dataclass(slots=True)
class _Lease:
    kind: LeaseKind
    deadline: float
    filed: float
    """The deadline under which the heap holds it; at most `deadline`."""
    seconds: float
    """How long it was granted for."""


@dataclass(slots=True)
class Leases:
    """One deadline for each node, in one heap. A renewal is a dictionary write; the heap is touched once a period."""

    _leases: dict[str, _Lease] = field(default_factory=dict)
    _heap: list[tuple[float, str]] = field(default_factory=list)
    _lost: float = 0.0

    def grant(self, node_id: str, kind: LeaseKind, seconds: float, now: float) -> None:
        """Give the node a deadline, in place of the one it has."""
        deadline = now - self._lost + seconds
        lease = self._leases.get(node_id)
        if lease is not None and lease.filed <= deadline:
            lease.kind = kind
            lease.deadline = deadline
            lease.seconds = seconds
            return
        self._leases[node_id] = _Lease(kind, deadline, deadline, seconds)
        heapq.heappush(self._heap, (deadline, node_id))

    def drop(self, node_id: str) -> None:
        """Forget the node."""
        self._leases.pop(node_id, None)

    def kind(self, node_id: str) -> LeaseKind | None:
        lease = self._leases.get(node_id)
        return lease.kind if lease is not None else None

    def __len__(self) -> int:
        return len(self._leases)

    def silent(self, now: float) -> Iterator[str]:
        """Nodes not heard from for more than half of their lease: more than one heartbeat has not come."""
        observed = now - self._lost
        for node_id, lease in self._leases.items():
            if lease.kind is not LeaseKind.ORPHAN and lease.deadline - observed < lease.seconds / 2:
                yield node_id

    def forgive(self, seconds: float) -> None:
        """Don't count this time: this manager was not listening (stalled, suspended), so nobody could be heard."""
        self._lost += seconds

    def next_check(self, now: float) -> float:
        """Seconds until `expired` can have something; infinity without leases."""
        if not self._heap:
            return float("inf")
        return max(0.0, self._heap[0][0] + self._lost - now)

    def expired(self, now: float) -> Iterator[tuple[str, LeaseKind]]:
        """Take out the leases that have run out."""
        observed = now - self._lost
        while self._heap and self._heap[0][0] <= observed:
            filed, node_id = heapq.heappop(self._heap)
            lease = self._leases.get(node_id)
            if lease is None or lease.filed != filed:
                continue
            if lease.deadline > observed:
                lease.filed = lease.deadline
                heapq.heappush(self._heap, (lease.deadline, node_id))
                continue
            del self._leases[node_id]
            yield node_id, lease.kind


@dataclass(slots=True)
class RegistrationLimit:
    """Holds nodes back that register again and again: more than three times, each within 8 s of the one before."""

    _recent: dict[str, tuple[int, float]] = field(default_factory=dict)

    def admits(self, node_id: str, now: float) -> bool:
        """Count one registration; False when it is one too many. What was refused does not prolong the wait."""
        known = self._recent.get(node_id)
        if known is None:
            self._recent[node_id] = (0, now)
            return True
        count, last = known
        if now - last > REGISTRATION_WINDOW:
            count = 0
        if count >= MAX_REGISTRATIONS:
            return False
        self._recent[node_id] = (count + 1, now)
        return True

    def forget(self, node_id: str) -> None:
        self._recent.pop(node_id, None)
