"""Waiting for changes or for a moment, whichever comes first: what reconcilers with timers sleep in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from swarmcore.clock import Clock
from swarmcore.store.changes import Change, Commit, Resync, Subscription

SLICE_SECONDS = 0.005
CHANGES_PER_LOOK = 16


class Inbox:
    """What arrives for one component. Loses nothing when a wait ends by its deadline or is cancelled."""

    def __init__(self, subscription: Subscription, clock: Clock) -> None:
        self._subscription = subscription
        self._clock = clock
        self._getting: asyncio.Task[Commit | Resync] | None = None

    def take(self) -> list[Commit | Resync]:
        """Everything that waits now."""
        taken: list[Commit | Resync] = []
        if self._getting is not None and self._getting.done():
            taken.append(self._getting.result())
            self._getting = None
        taken.extend(self._subscription.drain())
        return taken

    async def wait(self, deadline: float | None) -> None:
        """Return when something waits, or when the clock's `monotonic` has reached `deadline`."""
        if self._getting is None:
            self._getting = asyncio.create_task(self._subscription.get())
        waits: set[asyncio.Task[Commit | Resync] | asyncio.Task[None]] = {self._getting}
        timer = None
        if deadline is not None:
            timer = asyncio.create_task(self._clock.sleep_until(deadline))
            waits.add(timer)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        if self._getting is not None:
            self._getting.cancel()
        self._subscription.close()

    def __enter__(self) -> Inbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def feed(commits: Sequence[Commit | Resync], take: Callable[[Change], None], *, changes_per_slice: int) -> bool:
    """Give each change to `take`, in order; the loop has its turn after each slice, and where one takes long.

    False, with nothing taken, where changes were lost: then the view has to be read instead, which holds all of them.
    """
    if any(isinstance(commit, Resync) for commit in commits):
        return False
    count, end = 0, time.perf_counter() + SLICE_SECONDS
    for commit in commits:
        for change in commit.changes if isinstance(commit, Commit) else ():
            take(change)
            count += 1
            # Changes differ: that of a node may concern all of its tasks.
            if count % changes_per_slice == 0 or (count % CHANGES_PER_LOOK == 0 and time.perf_counter() >= end):
                await asyncio.sleep(0)
                end = time.perf_counter() + SLICE_SECONDS
    return True
