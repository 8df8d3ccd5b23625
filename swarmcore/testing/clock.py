"""A clock that moves only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any


async def let_the_loop_run(turns: int = 100) -> None:
    """Give every task that can go on the chance to, `turns` times."""
    for _ in range(turns):
        await asyncio.sleep(0)


class SimulatedClock:
    """Satisfies `swarmcore.clock.Clock`. Both clocks move together, by `advance` alone."""

    def __init__(
        self, start: float = 1_700_000_000.0, settle: Callable[[], Awaitable[None]] = let_the_loop_run
    ) -> None:
        self._now = start
        self._monotonic = 1_000.0
        self._settle = settle
        """Awaited between two timers, so that what the first set off is finished before the second fires."""
        self._timers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep_until(self, deadline: float) -> None:
        if deadline <= self._monotonic:
            return
        timer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._timers, (deadline, next(self._numbers), timer))
        await timer

    async def until_done(self, task: asyncio.Future[Any], step: float = 0.02) -> None:
        """Move on, but only while somebody waits for that, until `task` is done: real sockets need real time."""
        while not task.done():
            if any(not timer.done() for _, _, timer in self._timers):
                await self.advance(step)
            else:
                await asyncio.sleep(0.001)

    async def advance(self, seconds: float) -> None:
        """Move on, firing the timers on the way one after another, each at its own time."""
        target = self._monotonic + seconds
        await self._settle()
        while self._timers and self._timers[0][0] <= target:
            deadline, _, timer = heapq.heappop(self._timers)
            if timer.done():
                continue
            self._move_to(max(deadline, self._monotonic))
            timer.set_result(None)
            await self._settle()
        self._move_to(target)
        await self._settle()

    def _move_to(self, monotonic: float) -> None:
        self._now += monotonic - self._monotonic
        self._monotonic = monotonic
