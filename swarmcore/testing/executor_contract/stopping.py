"""Checks of how tasks are stopped, killed and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from swarmcore.plugin.executor import Controller
from swarmcore.testing.executor_contract.case import Case, Made, begin, case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import READY, Exit, Program, RunOn, exits, runs
from swarmcore.testing.executor_contract.subject import Subject

GRACE = 1.5
"""Seconds; long enough to be told from nothing on a busy machine."""
LONG_GRACE = 600.0
KILLED = 137
STUBBORN = {"TERM": ()}

Verb = Callable[[Controller], Callable[[], Awaitable[None]]]


class StopContract:
    """Shutdown asks and then kills, terminate kills, remove leaves nothing; all three whenever they come."""

    pytestmark = in_a_loop

    async def test_shutdown_asks_with_sigterm(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            program = Program(steps=runs().steps, on_signal={"TERM": (Exit(21),), "INT": (Exit(22),)})
            made = await case.started(program)

            await case.step(made.controller.shutdown, "shutdown")

            code = await case.end_of(made)
            assert code == 21, f"the task exits with 21 on SIGTERM, and ended with {code}"

    async def test_shutdown_asks_with_the_signal_of_the_spec(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            handlers = {"TERM": (Exit(21),), "INT": (Exit(22),), "USR1": (Exit(23),)}
            made = await case.started(Program(steps=runs().steps, on_signal=handlers, stop_signal="SIGUSR1"))

            await case.step(made.controller.shutdown, "shutdown")

            code = await case.end_of(made)
            assert code == 23, f"the task exits with 23 on its own stop signal, and ended with {code}"

    async def test_what_stops_in_time_is_not_waited_for_longer(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, grace=LONG_GRACE))

            await case.step(made.controller.shutdown, "shutdown of a task that stops at once")

    async def test_what_does_not_stop_has_its_grace_period_and_is_killed(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal=STUBBORN, grace=GRACE))
            clock = asyncio.get_running_loop()
            began = clock.time()

            await case.step(made.controller.shutdown, "shutdown of a task that ignores its stop signal")

            lasted = clock.time() - began
            assert lasted > 0.8 * GRACE, f"killed after {lasted:.2f} s, and its grace period is {GRACE:g} s"
            assert await subject.running(made.task) is None, "the task runs on after shutdown"
            code = await case.end_of(made)
            assert code == KILLED, f"a task that was killed ended with {code} instead of {KILLED}"

    async def test_terminate_kills_at_once(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal=STUBBORN, grace=LONG_GRACE))

            await case.step(made.controller.terminate, "terminate")

            assert await subject.running(made.task) is None, "the task runs on after terminate"
            code = await case.end_of(made)
            assert code == KILLED, f"a task that was killed ended with {code} instead of {KILLED}"

    async def test_a_kill_ends_a_shutdown_that_waits(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal=STUBBORN, grace=LONG_GRACE))
            stopping = begin(made.controller.shutdown())
            await asyncio.sleep(0.1)

            await case.step(made.controller.terminate, "terminate beside a shutdown")

            await case.soon(stopping, "a shutdown whose task was killed")

    async def test_a_shutdown_that_was_cancelled_can_be_followed_by_a_kill(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal=STUBBORN, grace=LONG_GRACE))
            stopping = begin(made.controller.shutdown())
            await asyncio.sleep(0.1)
            await case.cancelled(stopping, "shutdown")

            await case.step(made.controller.terminate, "terminate after a cancelled shutdown")

            assert await subject.running(made.task) is None, "the task runs on"

    async def test_a_wait_hears_that_the_task_was_stopped(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal={"TERM": (Exit(24),)}))
            waiting = begin(case.end_of(made))
            await asyncio.sleep(0.05)

            await case.step(made.controller.shutdown, "shutdown")

            code = await waiting
            assert code == 24, f"the task was stopped and ended with 24; the wait tells {code}"

    async def test_shutdown_may_come_in_every_state_and_twice(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            await _in_every_state(case, lambda controller: controller.shutdown, "shutdown")

    async def test_terminate_may_come_in_every_state_and_twice(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            await _in_every_state(case, lambda controller: controller.terminate, "terminate")

    async def test_remove_may_come_in_every_state_and_twice(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            await _in_every_state(case, lambda controller: controller.remove, "remove")

    async def test_remove_ends_what_runs(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal=STUBBORN))

            await case.removed(made)

            assert await subject.running(made.task) is None, "the task runs on after remove"

    async def test_remove_leaves_other_tasks_alone(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made, other = await case.started(runs()), await case.started(runs())
            before = await case.run_of(other.task)

            await case.removed(made)

            assert await subject.running(other.task) == before, "remove of one task ended another"

    async def test_what_was_removed_can_be_prepared_and_started_anew(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            await case.removed(made)

            again = await case.of(made.task)
            await case.step(again.controller.prepare, "prepare of a task that was removed before")
            await case.step(again.controller.start, "start of a task that was removed before")

            await case.run_of(again.task)


async def _in_every_state(case: Case, verb: Verb, what: str) -> None:
    """Not prepared, prepared, running, ended, removed; each time twice, and each task can be removed afterwards."""
    states: dict[str, Made] = {
        "before prepare": await case.make(runs()),
        "after prepare": await case.prepared(runs()),
        "while it runs": await case.started(runs()),
        "after its end": await case.started(exits(0)),
        "after remove": await case.started(Program(steps=(READY, RunOn()))),
    }
    await case.end_of(states["after its end"])
    await case.removed(states["after remove"])
    for when, made in states.items():
        for time in ("", ", a second time"):
            try:
                await case.step(verb(made.controller), f"{what} {when}{time}")
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(f"{what} {when}{time}: {error!r}") from error
        assert await case.subject.running(made.task) is None, f"the task runs on after {what} {when}"
