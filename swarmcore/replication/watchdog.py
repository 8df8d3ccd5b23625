"""Whether this manager can do what a leader must, judged at each tick; and how long its disk takes.

Heartbeats alone prove nothing: they go on while the disk hangs, and keep others from leading. So a manager whose writes
become durable no more, or whose agreed entries are not applied, for longer than an election says so to the machine,
which hands over. Time is counted in ticks of the loop: while the loop stands still, nothing here is to blame.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

log = logging.getLogger("swarmcore.replication")

MAX_PATIENCE: Final = 16
"""Elections that a manager waits at most before it says that it can't, where its disk is slow again and again."""
CALM_ELECTIONS: Final = 600
"""Elections without such a wait after which patience is halved: ten minutes."""
SLOW_SHARE: Final = 0.5
"""A write that takes this share of an election timeout is slow."""
ALARM_SECONDS: Final = 60.0
BUCKETS: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192)
"""Upper bounds in seconds; etcd's, so that its dashboards serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is under way at a tick. Equal `written` or `applied` at two ticks: nothing was finished between them."""

    is_writing: bool
    """A write of the log is with the disk."""
    written: int
    """Writes that the disk has answered."""
    is_applying: bool
    """Entries that are agreed and durable wait to be applied."""
    applied: int
    """Index of the last applied entry."""


class Watchdog:
    """Pure: `tick` gets what is under way, and returns why this manager can't lead, or nothing.

    With each judgement against it, it waits twice as long before the next: where all disks are slow, leadership would
    go round and round. Ten calm minutes halve that again.
    """

    def __init__(self, *, election_tick: int, tick_seconds: float) -> None:
        self._election_tick = election_tick
        self._tick_seconds = tick_seconds
        self._patience = 1
        self._calm_ticks = 0
        self._last = Work(is_writing=False, written=0, is_applying=False, applied=0)
        self._write_ticks = 0
        self._apply_ticks = 0
        self.why_not = ""
        """The judgement of the last tick."""

    @property
    def stuck_seconds(self) -> float:
        """For how long nothing has moved that should have."""
        return max(self._write_ticks, self._apply_ticks) * self._tick_seconds

    def tick(self, work: Work) -> str:
        last, self._last = self._last, work
        is_stuck = last.is_writing and work.is_writing and work.written == last.written
        self._write_ticks = self._write_ticks + 1 if is_stuck else 0
        is_stuck = last.is_applying and work.is_applying and work.applied == last.applied
        self._apply_ticks = self._apply_ticks + 1 if is_stuck else 0
        was_fit, self.why_not = not self.why_not, self._judge()
        self._learn(was_fit)
        return self.why_not

    def _judge(self) -> str:
        # A judgement stands until something moves: patience that grew meanwhile is for the next time.
        patience = 1 if self.why_not else self._patience * self._election_tick
        if self._write_ticks >= patience:
            return f"its disk has not answered a write for {self._write_ticks * self._tick_seconds:.1f} s"
        if self._apply_ticks >= patience:
            return f"it has applied nothing of what was agreed for {self._apply_ticks * self._tick_seconds:.1f} s"
        return ""

    def _learn(self, was_fit: bool) -> None:
        if self.why_not:
            self._calm_ticks = 0
            if was_fit:
                self._patience = min(2 * self._patience, MAX_PATIENCE)
        elif self._patience > 1:
            self._calm_ticks += 1
            if self._calm_ticks >= CALM_ELECTIONS * self._election_tick:
                self._calm_ticks = 0
                self._patience //= 2


@dataclass(slots=True)
class WriteTimes:
    """How long the log's writes take: a histogram, and an alarm once a minute at most."""

    slow_seconds: float
    where: str
    """The folder, for the alarm."""
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """Writes by bucket; the last one has no bound."""
    total_seconds: float = 0.0
    _slow: int = 0
    _slowest: float = 0.0
    _next_alarm: float = 0.0

    def took(self, seconds: float, now: float) -> None:
        """One write was answered. `now` is monotonic."""
        self.counts[bisect.bisect_left(BUCKETS, seconds)] += 1
        self.total_seconds += seconds
        if seconds >= self.slow_seconds:
            self._slow += 1
            self._slowest = max(self._slowest, seconds)
        if self._slow and now >= self._next_alarm:
            log.warning(
                "the disk of %r is slow: %d writes took %.2f s and more, the slowest %.2f s; managers need one that "
                "makes a write durable in milliseconds",
                self.where, self._slow, self.slow_seconds, self._slowest,
            )  # fmt: skip
            self._slow, self._slowest, self._next_alarm = 0, 0.0, now + ALARM_SECONDS

    @property
    def cumulative(self) -> Sequence[tuple[float, int]]:
        """Pairs of an upper bound and how many writes took at most that, as Prometheus counts; infinity is the last."""
        pairs, count = [], 0
        for bound, number in zip((*BUCKETS, float("inf")), self.counts, strict=True):
            count += number
            pairs.append((bound, count))
        return pairs
