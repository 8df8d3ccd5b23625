"""Checks that nothing is left: on the engine, and in the agent's own process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

from swarmcore.plugin.executor import LogOptions, LogSource
from swarmcore.testing.executor_contract.case import Case, begin, case_of, close_stream, log_source
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import READY, Program, RunOn, exits, runs
from swarmcore.testing.executor_contract.subject import Subject

LIVES = 4
DESCRIPTORS = Path("/proc/self/fd")


class LeakContract:
    """Tasks come and go by the million in the life of one agent."""

    pytestmark = in_a_loop

    async def test_removed_tasks_leave_nothing_on_the_engine(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            before = await subject.leftovers()
            for program in (exits(0), exits(1), Program(steps=(READY, RunOn()), scratch=True)):
                await case.removed(await case.started(program))
            await case.removed(await case.prepared(Program(scratch=True)))

            more = await subject.leftovers() - before

            assert not more, f"left over: {sorted(more)}"

    async def test_tasks_leave_no_file_descriptor(self, subject: Subject) -> None:
        await _counted(subject, _descriptors, "file descriptor")

    async def test_tasks_leave_no_thread(self, subject: Subject) -> None:
        await _counted(subject, threading.active_count, "thread")

    async def test_tasks_leave_no_asyncio_task(self, subject: Subject) -> None:
        await _counted(subject, lambda: len(asyncio.all_tasks()), "asyncio task")


async def _counted(subject: Subject, count: Callable[[], int], what: str) -> None:
    """What there is after some lives, and after `aclose`, is what there was before."""
    async with case_of(subject) as case:
        # What is made once for all, such as the event loop's own threads, is no leak.
        await _life(case)
    before = count()
    async with case_of(subject) as case:
        await _life(case)
        held = count()
        for _ in range(LIVES):
            await _life(case)

        # What an executor holds for all tasks may still grow to its own bound: less than one for each task is that.
        if count() - held >= LIVES:
            gc.collect()
        grown = count() - held
        assert grown < LIVES, f"{LIVES} tasks left {grown} {what}s more"

    def is_back() -> bool:
        if count() <= before:
            return True
        # What waits for its collection is no leak.
        gc.collect()
        return count() <= before

    deadline = asyncio.get_running_loop().time() + subject.patience
    while not is_back() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.05)
    assert is_back(), f"after aclose there is {count() - before} {what} more than before"


async def _life(case: Case) -> None:
    """A life with everything that may leave something behind: calls that are cancelled, streams that are left early."""
    made = await case.make(runs())
    preparing = begin(made.controller.prepare())
    await asyncio.sleep(0)
    await case.cancelled(preparing, "prepare")
    await case.removed(made)
    again = await case.started(runs())
    waiting = begin(again.controller.wait())
    if isinstance(again.controller, LogSource):
        stream = log_source(again.controller).logs(LogOptions(follow=True))
        await case.soon(anext(stream), "the first line of output")
        await case.soon(close_stream(stream), "closing a stream of output")
    await case.cancelled(waiting, "wait")
    await case.removed(again)
    for each in (made, again):
        await case.soon(each.controller.aclose(), "aclose of the controller")


def _descriptors() -> int:
    return len(os.listdir(DESCRIPTORS))
