"""The beat of a replica: time for the machine, and at each beat the question whether this manager can do its work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from swarmcore.clock import Clock
from swarmcore.raft.events import Event, FitnessJudged, StoodStill, Ticked
from swarmcore.replication.applier import Applier
from swarmcore.replication.watchdog import Watchdog, Work
from swarmcore.replication.write_queue import WriteQueue

log = logging.getLogger("swarmcore.replication")

ROOM_CHECK_TICKS = 5


class Pulse:
    """Ticks on the loop that applies: while that stands still, so do the heartbeats."""

    def __init__(
        self,
        *,
        clock: Clock,
        tick_seconds: float,
        election_seconds: float,
        watchdog: Watchdog,
        writes: WriteQueue,
        applier: Applier,
        step: Callable[[Event], object],
        leads: Callable[[], bool],
        beaten: Callable[[], None],
    ) -> None:
        """`beaten` is called after each tick."""
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._election_seconds = election_seconds
        self._watchdog = watchdog
        self._writes = writes
        self._applier = applier
        self._step = step
        self._leads = leads
        self._beaten = beaten

    async def run(self) -> None:
        """Beat until cancelled."""
        deadline = self._clock.monotonic()
        room: asyncio.Task[bool] | None = None
        try:
            for number in range(1, 1 << 62):
                deadline += self._tick_seconds
                await self._clock.sleep_until(deadline)
                late = self._clock.monotonic() - deadline
                if late > 2 * self._tick_seconds:
                    # The process stood still: ticks in a burst would look like silence of the others.
                    deadline = self._clock.monotonic()
                if late > self._election_seconds:
                    self._stood_still(late)
                self._watch()
                self._step(Ticked())
                self._beaten()
                if self._writes.is_full and number % ROOM_CHECK_TICKS == 0 and (room is None or room.done()):
                    # Not waited for: the disk may hang, and time must not.
                    room = asyncio.create_task(self._writes.check_room(), name="raft room check")
        finally:
            if room is not None:
                room.cancel()
                await asyncio.wait({room})

    def _stood_still(self, seconds: float) -> None:
        if self._leads():
            log.warning("this manager stood still for %.1f s while it led: asking the others who leads now", seconds)
        self._step(StoodStill())

    def _watch(self) -> None:
        """Tell the machine when this manager can't do what a leader must, and when it can again."""
        before = self._watchdog.why_not
        why_not = self._watchdog.tick(
            Work(
                is_writing=self._writes.is_writing,
                written=self._writes.answered,
                is_applying=self._applier.is_behind,
                applied=self._applier.index,
            )
        )
        if bool(before) != bool(why_not):
            if why_not:
                log.warning("this manager can't lead now: %s", why_not)
            else:
                log.info("this manager can lead again")
            self._step(FitnessJudged(why_not))
