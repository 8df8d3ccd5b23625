"""Checks of the state table: prepare, start, wait and update, each also twice, too early, too late and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import (
    Controller,
    ExecutorError,
    TaskPreparedError,
    TaskRejectedError,
    TaskStartedError,
)
from swarmcore.testing.executor_contract.case import Case, begin, case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import Exit, Pause, Print, Program, exits, runs
from swarmcore.testing.executor_contract.subject import Subject

MOMENTS = (0.0, 0.007, 0.04, 0.15)
"""Seconds after which a call is cancelled: before it did anything, and somewhere in the middle."""
OLD_GRACE = 7.0
NO_SUCH_RUNTIME = "no-such-runtime"
READY_AND_RUN = runs().steps


class StateContract:
    """What each call does to a task, whenever it comes."""

    pytestmark = in_a_loop

    async def test_wait_returns_when_the_task_ended_well(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=(Pause(0.2), Exit(0))))

            await case.step(made.controller.wait, "wait")

    async def test_wait_tells_each_exit_code(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            codes = (1, 42, 255)
            made = [await case.started(exits(code)) for code in codes]

            told = tuple([await case.end_of(each) for each in made])

            assert told == codes, f"tasks ended with {codes}, and wait tells {told}"

    async def test_wait_tells_the_end_as_often_as_it_is_asked(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(exits(3))

            first = await case.end_of(made)
            second = await case.end_of(made)

            assert (first, second) == (3, 3), f"wait told {first}, and then {second}"

    async def test_all_that_wait_hear_of_the_end(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=(Pause(0.3), Exit(4))))

            told = await asyncio.gather(*(case.end_of(made) for _ in range(3)))

            assert told == [4, 4, 4], f"three waited for the same end, and were told {told}"

    async def test_preparing_runs_nothing(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(Program(steps=(Print(b"too early\n"), *runs().steps)))

            run = await subject.running(made.task)
            printed = await subject.printed(made.task)

            assert run is None and not printed, "the task runs after prepare, and start was not called"

    async def test_preparing_twice_makes_one(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(runs())
            before = await subject.leftovers()

            await case.again(made.controller.prepare, "prepare, a second time", TaskPreparedError)

            more = await subject.leftovers() - before
            assert not more, f"the second prepare made something more: {sorted(more)}"

    async def test_another_controller_goes_on_with_what_is_prepared(self, subject: Subject) -> None:
        """The agent was restarted and had no time to store anything."""
        async with case_of(subject) as case:
            first = await case.prepared(runs())
            second = await case.of(first.task)

            await case.again(second.controller.prepare, "prepare by another controller", TaskPreparedError)
            await case.step(second.controller.start, "start by another controller")

            await case.run_of(first.task)

    async def test_starting_twice_runs_it_once(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            before = await case.run_of(made.task)

            await case.again(made.controller.start, "start, a second time", TaskStartedError)

            after = await case.run_of(made.task)
            assert after == before, "the second start ran the task again"

    async def test_what_has_ended_is_not_started_again(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=(Print(b"once\n"), Exit(6))))
            await case.end_of(made)

            await case.again(made.controller.start, "start of a task that has ended", TaskStartedError)

            await case.end_of(made)
            printed = await subject.printed(made.task)
            assert printed == b"once\n", f"the task ran again: it printed {printed!r}"

    async def test_starting_what_was_not_prepared_is_an_error(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.make(runs())

            error = await _error_of(case, made.controller.start(), "start without prepare")

            assert isinstance(error, ExecutorError), f"start without prepare: {error!r}, not an ExecutorError"
            assert await subject.running(made.task) is None, "start runs a task that was not prepared"

    async def test_prepare_goes_on_after_it_was_cancelled(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            before = await subject.leftovers()
            for moment in MOMENTS:
                made = await case.make(runs())
                preparing = begin(made.controller.prepare())
                await asyncio.sleep(moment)
                await case.cancelled(preparing, "prepare")

                await case.again(made.controller.prepare, "prepare after it was cancelled", TaskPreparedError)
                await case.step(made.controller.start, "start after a cancelled prepare")

                await case.run_of(made.task)
                await case.removed(made)
            more = await subject.leftovers() - before
            assert not more, f"a cancelled prepare made something that remove does not know: {sorted(more)}"

    async def test_start_goes_on_after_it_was_cancelled(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            for moment in MOMENTS:
                made = await case.prepared(Program(steps=(Print(b"once\n"), *runs().steps)))
                starting = begin(made.controller.start())
                await asyncio.sleep(moment)
                await case.cancelled(starting, "start")

                if starting.cancelled():
                    await case.again(made.controller.start, "start after it was cancelled", TaskStartedError)

                await case.ready(made.task, runs())
                await case.step(made.controller.shutdown, "shutdown")
                await case.end_of(made)
                count = (await subject.printed(made.task)).count(b"once\n")
                assert count == 1, f"after a cancelled start the task ran {count} times"

    async def test_wait_goes_on_after_it_was_cancelled(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=READY_AND_RUN, on_signal={"TERM": (Exit(8),)}))
            waiting = begin(made.controller.wait())
            await asyncio.sleep(0.05)
            await case.cancelled(waiting, "wait")

            await case.step(made.controller.shutdown, "shutdown")

            code = await case.end_of(made)
            assert code == 8, f"a wait after one that was cancelled tells {code} instead of 8"

    async def test_an_update_leaves_what_runs_alone(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=READY_AND_RUN, on_signal={"TERM": (Exit(9),)}))
            before = await case.run_of(made.task)
            newer = subject.make_task(Program(grace=OLD_GRACE))
            newer.id = made.task.id
            newer.annotations.labels["newer"] = "yes"

            await case.soon(made.controller.update(newer), "update")

            after = await case.run_of(made.task)
            assert after == before, "an update started the task anew"
            await case.step(made.controller.shutdown, "shutdown")
            code = await case.end_of(made)
            assert code == 9, f"after an update wait tells {code} instead of 9"

    async def test_a_command_that_does_not_exist_is_refused_with_a_reason(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.make(Program(is_missing=True))

            error = await _error_of(case, _prepare_and_start(case, made.controller), "prepare and start")

            assert isinstance(error, TaskRejectedError), f"a missing command: {error!r}, not a TaskRejectedError"
            assert str(error).strip(), "a missing command is refused without a word"

    async def test_a_task_of_another_runtime_is_refused_with_a_reason(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            task = Task(id=subject.make_task(exits(0)).id)
            task.spec.generic.kind = NO_SUCH_RUNTIME

            async def resolve() -> None:
                await _prepare_and_start(case, (await case.of(task)).controller)

            error = await _error_of(case, resolve(), "controller")

            assert isinstance(error, TaskRejectedError), f"a foreign runtime: {error!r}, not a TaskRejectedError"
            assert str(error).strip(), "a foreign runtime is refused without a word"


async def _prepare_and_start(case: Case, controller: Controller) -> None:
    await case.step(controller.prepare, "prepare")
    await case.step(controller.start, "start")


async def _error_of(case: Case, call: Awaitable[None], what: str) -> Exception | None:
    try:
        await case.soon(call, what)
    except AssertionError:
        raise
    except Exception as error:  # noqa: BLE001 - which it is is what the check is about
        return error
    return None
