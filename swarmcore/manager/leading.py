"""The one registry of what runs only while this manager leads: started together, stopped together, fenced by term."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from swarmcore.errors import NotLeaderError, ResourceExhaustedError
from swarmcore.store.store import LeaderStore, Store

log = logging.getLogger("swarmcore.manager")

RESTART_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
STOP_SECONDS = 8.0
PREPARE_AGAIN_SECONDS = 1.0


class LeaderComponent(Protocol):
    """Something that runs only on the leader.

    One instance lives as long as the manager; all state of a term is made inside `run` and dropped when it ends.
    """

    @property
    def name(self) -> str: ...

    async def run(self, store: LeaderStore) -> None:
        """Work until cancelled. `store` writes only in the term it was made for.

        What it raises is logged, and it is run again after a pause, in the same term.
        """
        ...


class Leadership(Protocol):
    """Who tells whether this manager leads."""

    @property
    def term(self) -> int:
        """The term in which this manager leads with its whole log applied; 0 while it does not."""
        ...

    async def wait_leadership_change(self, known: int) -> int:
        """Return the term once it differs from `known`."""
        ...


Prepare = Callable[[LeaderStore], Awaitable[None]]


async def lead(leadership: Leadership, store: Store, components: Sequence[LeaderComponent], prepare: Prepare) -> None:
    """Run `prepare` and then the components in every term that this manager leads.

    Ends when cancelled, and with what `prepare` raised: a manager that can't begin its term is of no use to anyone.
    """
    term = leadership.term
    while True:
        if not term:
            term = await leadership.wait_leadership_change(0)
            continue
        running: list[asyncio.Task[None]] = []
        work = asyncio.create_task(_lead_term(store.writer(term), components, prepare, running), name=f"term {term}")
        change = asyncio.ensure_future(leadership.wait_leadership_change(term))
        try:
            await asyncio.wait({work, change}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            term = await change
        finally:
            change.cancel()
            await _stop(work, running)


async def _lead_term(
    store: LeaderStore, components: Sequence[LeaderComponent], prepare: Prepare, running: list[asyncio.Task[None]]
) -> None:
    """`running` gets the components' tasks, so that who ends the term sees which of them don't."""
    log.info("leading in term %d", store.term)
    try:
        await _prepare(prepare, store)
    except NotLeaderError:
        return
    async with asyncio.TaskGroup() as group:
        running.extend(group.create_task(_supervise(each, store), name=each.name) for each in components)


async def _prepare(prepare: Prepare, store: LeaderStore) -> None:
    """Prepare, waiting for as long as the disk is full: that passes by itself."""
    is_told = False
    while True:
        try:
            await prepare(store)
        except ResourceExhaustedError as error:
            if not is_told:
                log.warning("can't lead yet: %s", error)
            is_told = True
            await asyncio.sleep(PREPARE_AGAIN_SECONDS)
        else:
            return


async def _supervise(component: LeaderComponent, store: LeaderStore) -> None:
    failures = 0
    task = asyncio.current_task()
    assert task is not None
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await component.run(store)
        except NotLeaderError:
            log.debug("%s: the term is over", component.name)
        except Exception:  # the supervisor: one component's bug must not end the others
            if not task.cancelling():
                log.exception("%s failed and starts again", component.name)
        if task.cancelling():
            # The end of the term made something of it fail, and that failure hid the cancellation.
            raise asyncio.CancelledError
        if asyncio.get_running_loop().time() - started > 60:
            failures = 0
        await asyncio.sleep(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)])
        failures += 1


async def _stop(work: asyncio.Task[None], running: Sequence[asyncio.Task[None]]) -> None:
    """Cancel and wait; a component that does not end in time is named and left behind: its writes are refused."""
    work.cancel()
    done, _ = await asyncio.wait({work}, timeout=STOP_SECONDS)
    if not done:
        names = ", ".join(task.get_name() for task in running if not task.done()) or "its preparation"
        log.error("the last term is over, and %s did not stop in %.0f s: left behind", names, STOP_SECONDS)
    elif not work.cancelled():
        # `lead` raises it where there was time to; else it came of the stop itself.
        work.exception()
