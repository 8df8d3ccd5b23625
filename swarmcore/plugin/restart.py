"""Restart policies: whether a task that ended gets a successor, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from swarmcore.api.objects_pb2 import Service, Task


@dataclass(frozen=True, slots=True)
class Restart:
    delay: float
    """Seconds from `now`."""


@dataclass(frozen=True, slots=True)
class NoRestart:
    reason: str


RestartDecision: TypeAlias = Restart | NoRestart


@dataclass(frozen=True, slots=True)
class RestartRecord:
    """A restart that took place in the same slot at the same spec version."""

    at: float
    """Seconds since the epoch: when the successor was created."""


class RestartPolicy(Protocol):
    """Pure and quick: no clock, network, disk, chance. `history` comes from the store, so it survives a failover."""

    name: str
    """Chosen by the service's label `swarmcore.restart-policy`, else `default`."""

    def decide(
        self, *, task: Task, service: Service | None, history: Sequence[RestartRecord], now: float
    ) -> RestartDecision: ...
