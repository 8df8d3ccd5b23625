"""The driver: store changes in, decisions committed. Runs on the manager that leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarmcore.clock import Clock, SystemClock
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.scheduler.commit import Leftover, commit
from swarmcore.scheduler.intake import FREED, NOTHING, TABLES, WORK, Meaning, meaning_of
from swarmcore.scheduler.planner import Everything, Input, Output, Planner
from swarmcore.scheduler.thread import PlannerThread
from swarmcore.store.changes import Change, Commit, Resync, Subscription
from swarmcore.store.store import LeaderStore

DEFAULT_STRATEGY = "spread"
RESYNC_SECONDS = 10.0
"""What waits is tried again this often, though nothing happened."""
PAUSE_SECONDS = 1.0
"""After the store took nothing."""
MAX_LATER = 2_000
"""Changes that are kept for the next round before there is one for their sake."""
SLICE = 4_000
"""Changes looked at before the loop goes on to others: about 4 ms."""


class Scheduler:
    """Satisfies `LeaderComponent`."""

    name = "scheduler"

    def __init__(
        self, *, plugins: Callable[[], PluginSet], clock: Clock | None = None, strategy: str = DEFAULT_STRATEGY
    ) -> None:
        """`strategy` names the one of the plugins' strategies that places everything."""
        self._plugins = plugins
        self._clock = clock if clock is not None else SystemClock()
        self._strategy = strategy

    async def run(self, store: LeaderStore) -> None:
        """Place tasks until cancelled."""
        thread = PlannerThread(Planner(self._strategy, self._clock.monotonic))
        subscription = store.subscribe(TABLES)
        term = _Term(store, subscription, thread, self._plugins, self._clock)
        try:
            await term.run()
        finally:
            subscription.close()
            await thread.aclose()


class _Term:
    """One term of the scheduler."""

    def __init__(
        self,
        store: LeaderStore,
        subscription: Subscription,
        thread: PlannerThread,
        plugins: Callable[[], PluginSet],
        clock: Clock,
    ) -> None:
        self._store = store
        self._subscription = subscription
        self._thread = thread
        self._plugins = plugins
        self._clock = clock
        self._changes: list[Change] = []
        self._urgency = Meaning.NOTHING
        self._must_start_over = True
        self._known_version = 0
        """The version of the store from which the thread started."""
        self._is_resync = False
        self._resync_at = 0.0
        self._leftover = Leftover()

    async def run(self) -> None:
        output: Output | None = None
        getting: asyncio.Task[Commit | Resync] | None = None
        try:
            while True:
                commits = self._subscription.drain()
                if getting is not None and getting.done():
                    commits.insert(0, getting.result())
                    getting = None
                await self._take_in(commits)
                if self._is_due(output):
                    output = await self._round()
                    continue
                if getting is None:
                    getting = asyncio.create_task(self._subscription.get(), name="scheduler changes")
                await self._wait(getting, output)
        finally:
            if getting is not None:
                getting.cancel()

    def _is_due(self, output: Output | None) -> bool:
        if output is None or output.has_more or self._must_start_over or self._is_resync:
            return True
        if self._leftover.failed or self._leftover.refused:
            # What refused them is known by now: it was applied before, so it is among the changes.
            return True
        least = FREED if output.is_resting and output.retry_at is None else WORK
        return self._urgency >= least or len(self._changes) >= MAX_LATER

    async def _wait(self, getting: asyncio.Task[Commit | Resync], output: Output | None) -> None:
        """Return when a commit came, or when it is time to try again what waits."""
        if output is None or not output.is_resting:
            await asyncio.wait({getting})
            return
        at = output.retry_at if output.retry_at is not None else self._resync_at
        timer = asyncio.create_task(self._clock.sleep_until(at), name="scheduler timer")
        try:
            await asyncio.wait({getting, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        # By the clock: where something happens all the time, the timer is never the first.
        self._is_resync = self._clock.monotonic() >= at

    async def _take_in(self, commits: list[Commit | Resync]) -> None:
        """Keep what the thread has to hear of."""
        changes, urgency, looked = self._changes, self._urgency, 0
        for commit_ in commits:
            if isinstance(commit_, Resync):
                self._must_start_over = True
            if isinstance(commit_, Resync) or commit_.version <= self._known_version:
                continue
            for change in commit_.changes:
                meaning = meaning_of(change)
                if meaning is not NOTHING:
                    changes.append(change)
                    urgency = meaning if meaning > urgency else urgency
            looked += len(commit_.changes)
            if looked >= SLICE:
                looked = 0
                await asyncio.sleep(0)
        self._urgency = urgency

    async def _round(self) -> Output:
        everything = None
        if self._must_start_over:
            # The view says it all: what waits in the subscription is in it already.
            self._subscription.drain()
            self._changes = []
            view = self._store.view
            everything = Everything(
                nodes=list(view.node.all()), services=list(view.service.all()), tasks=list(view.task.all())
            )
            self._must_start_over = False
            self._known_version = self._store.version
        given = Input(
            plugins=self._plugins(),
            everything=everything,
            refused=self._leftover.refused if everything is None else (),
            failed=self._leftover.failed if everything is None else (),
            changes=self._changes,
            is_resync=self._is_resync,
        )
        self._changes, self._urgency, self._is_resync, self._leftover = [], NOTHING, False, Leftover()
        output = await self._thread.ask(given)
        self._resync_at = self._clock.monotonic() + RESYNC_SECONDS
        if output.decisions:
            self._leftover = await commit(self._store, output.decisions, self._clock.now())
            if self._leftover.is_unwritable:
                await self._clock.sleep_until(self._clock.monotonic() + PAUSE_SECONDS)
        return output
