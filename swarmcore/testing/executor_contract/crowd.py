"""Checks of many calls at once, and of calls that are pending when their object is closed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from swarmcore.plugin.executor import ContainerStatuser, ExitError, LogLine, LogOptions
from swarmcore.testing.executor_contract.case import Case, Made, begin, case_of, close_stream, log_source
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import Exit, Program, runs
from swarmcore.testing.executor_contract.stopping import LONG_GRACE
from swarmcore.testing.executor_contract.subject import Subject

TASKS = 2
WAITS = 200
THREADS = 16
"""An agent may have so many, and with waits no more."""
BLOCKED_SECONDS = 0.25
TURN_SECONDS = 0.01


class CrowdContract:
    """Nobody waits for somebody else's wait, and nothing is pending after `aclose`."""

    pytestmark = in_a_loop

    async def test_200_waits_delay_no_other_call(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made, waits = await _waiting(case, runs())

            await case.soon(case.executor.describe(), f"describe beside {WAITS} waits")
            for each in made:
                if isinstance(each.controller, ContainerStatuser):
                    await case.soon(each.controller.container_status(), f"container_status beside {WAITS} waits")
            await _one_life(case)

            await _ended(waits)

    async def test_200_waits_all_hear_of_the_end(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made, waits = await _waiting(case, Program(steps=runs().steps, on_signal={"TERM": (Exit(41),)}))

            await asyncio.gather(*(case.step(each.controller.shutdown, "shutdown") for each in made))

            _, pending = await asyncio.wait(waits, timeout=subject.patience)
            codes = {_code(wait) for wait in waits if wait not in pending}
            await _ended(waits)
            assert not pending, f"{len(pending)} of {WAITS} waits did not hear of the end"
            assert codes == {41}, f"{WAITS} waits for ends with 41 were told {codes}"

    async def test_200_waits_take_no_thread_each(self, subject: Subject) -> None:
        before = threading.active_count()
        async with case_of(subject) as case:
            _, waits = await _waiting(case, runs())

            threads = threading.active_count() - before

            await _ended(waits)
            assert threads <= THREADS, f"{WAITS} waits take {threads} threads"

    async def test_no_call_blocks_the_event_loop(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            await _one_life(case)
            watch = _LoopWatch()
            watching = begin(watch.run())
            await asyncio.sleep(0)

            await _one_life(case)
            await case.soon(case.executor.describe(), "describe")

            await asyncio.sleep(2 * TURN_SECONDS)
            await case.cancelled(watching, "the watch")
            longest = watch.longest
            assert longest < BLOCKED_SECONDS, f"a call blocked the event loop for {longest:.2f} s"

    async def test_closing_a_controller_ends_its_wait_without_an_outcome(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            waiting = begin(made.controller.wait())
            await asyncio.sleep(0.1)

            await case.soon(made.controller.aclose(), "aclose of the controller")

            await _ends_without_outcome(case, waiting, "the controller")

    async def test_closing_the_executor_ends_waits_without_an_outcome(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            waiting = begin(made.controller.wait())
            await asyncio.sleep(0.1)

            await case.soon(case.executor.aclose(), "aclose of the executor")

            await _ends_without_outcome(case, waiting, "the executor")

    async def test_closing_the_executor_ends_a_shutdown_that_waits(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal={"TERM": ()}, grace=LONG_GRACE))
            stopping = begin(made.controller.shutdown())
            await asyncio.sleep(0.1)

            await case.soon(case.executor.aclose(), "aclose of the executor")

            _, pending = await asyncio.wait([stopping], timeout=subject.patience)
            await case.cancelled(stopping, "shutdown")
            assert not pending, "a shutdown goes on after aclose of the executor"

    async def test_closing_the_executor_ends_streams_of_output(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            stream = log_source(made.controller).logs(LogOptions(follow=True))
            await case.soon(anext(stream), "the first line of a task that printed one")
            reading = begin(_rest_of(stream))
            await asyncio.sleep(0.1)

            await case.soon(case.executor.aclose(), "aclose of the executor")

            _, pending = await asyncio.wait([reading], timeout=subject.patience)
            reading.cancel()
            await asyncio.wait([reading])
            await close_stream(stream)
            assert not pending, "a stream that follows a task's output goes on after aclose of the executor"

    async def test_closing_twice_is_closing_once(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            for time_ in ("", ", a second time"):
                await case.soon(made.controller.aclose(), f"aclose of the controller{time_}")
            for time_ in ("", ", a second time"):
                await case.soon(case.executor.aclose(), f"aclose of the executor{time_}")


async def _waiting(case: Case, program: Program) -> tuple[list[Made], list[asyncio.Task[None]]]:
    """Tasks, and waits for them that all are under way; each by a controller of its own."""
    made = [await case.started(program) for _ in range(TASKS)]
    waits = []
    for number in range(WAITS):
        each = made[number % TASKS]
        found = await case.found(case.executor, each.task, each.controller.handle)
        waits.append(begin(found.controller.wait()))
    await asyncio.sleep(0.1)
    return made, waits


async def _ended(waits: list[asyncio.Task[None]]) -> None:
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


async def _one_life(case: Case) -> None:
    made = await case.started(runs())
    await case.step(made.controller.shutdown, "shutdown")
    await case.end_of(made)
    await case.removed(made)


async def _rest_of(stream: AsyncIterator[LogLine]) -> None:
    async for _ in stream:
        pass


async def _ends_without_outcome(case: Case, waiting: asyncio.Task[None], what: str) -> None:
    _, pending = await asyncio.wait([waiting], timeout=case.subject.patience)
    if pending:
        await case.cancelled(waiting, "wait")
        raise AssertionError(f"a wait goes on after aclose of {what}")
    if waiting.cancelled():
        return
    error = waiting.exception()
    assert error is not None, f"aclose of {what} made wait return, as if the task had ended well"
    assert not isinstance(error, ExitError), f"aclose of {what} made wait tell an end that was none: {error}"


def _code(wait: asyncio.Task[None]) -> int | str:
    error = wait.exception()
    if error is None:
        return 0
    return error.code if isinstance(error, ExitError) else repr(error)


class _LoopWatch:
    """Measures the longest time in which the loop did not turn, less what other processes took of the machine."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            before = _running_seconds()
            await asyncio.sleep(TURN_SECONDS)
            self.longest = max(self.longest, _running_seconds() - before - TURN_SECONDS)


def _running_seconds() -> float:
    """Time that passed for this thread: that in which it could have run and did not is not counted."""
    try:
        delay = int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        delay = 0
    return time.monotonic() - delay / 1e9
