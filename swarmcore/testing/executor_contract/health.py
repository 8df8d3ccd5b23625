"""Checks of health: it holds up the start, and its loss ends the task."""

from __future__ import annotations

import asyncio

from swarmcore.plugin.executor import ExitError
from swarmcore.testing.executor_contract.case import begin, case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import (
    NO_HEALTH_TEST,
    READY,
    BecomeHealthy,
    BecomeSick,
    Exit,
    Health,
    Pause,
    Program,
    RunOn,
    runs,
)
from swarmcore.testing.executor_contract.subject import Subject


class HealthContract:
    """A task with a health check runs when it is healthy, and fails when it is not."""

    pytestmark = in_a_loop

    async def test_start_returns_when_the_task_is_healthy_and_not_before(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            program = Program(
                steps=(Pause(0.8), READY, BecomeHealthy(), RunOn()), health=Health(interval=0.5, retries=100)
            )
            made = await case.prepared(program)

            await case.step(made.controller.start, "start of a task that becomes healthy")

            printed = await subject.printed(made.task)
            assert READY.data in printed, "start returned before the task was healthy"
            await case.run_of(made.task)

    async def test_a_task_that_does_not_become_healthy_fails_in_start_and_is_stopped(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(Program(steps=runs().steps, health=Health(interval=0.3, retries=1)))

            error = None
            try:
                await case.step(made.controller.start, "start of a task that does not become healthy")
            except ExitError as raised:
                error = raised

            assert error is not None, "start returned, and the task is not healthy"
            assert "health" in str(error), f"the error does not say that the task is unhealthy: {error}"
            assert await subject.running(made.task) is None, "an unhealthy task runs on after start has failed"

    async def test_a_task_that_turns_unhealthy_fails_in_wait_and_is_stopped(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            steps = (BecomeHealthy(), Pause(1.5), BecomeSick(), RunOn())
            made = await case.prepared(Program(steps=steps, health=Health(interval=0.3, retries=2)))

            error = None
            try:
                # On a slow machine its healthy time may be over before anybody has seen it.
                await case.step(made.controller.start, "start of a task that is healthy for some time")
                await case.step(made.controller.wait, "wait for a task that turns unhealthy")
            except ExitError as raised:
                error = raised

            assert error is not None, "wait returned as if all were well, and the task turned unhealthy"
            assert "health" in str(error), f"the error does not say that the task is unhealthy: {error}"
            assert await subject.running(made.task) is None, "a task that turned unhealthy runs on after wait"

    async def test_a_task_that_ends_before_it_is_healthy_does_not_hang_start(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(Program(steps=(Pause(0.3), Exit(51)), health=Health(interval=0.2, retries=1000)))

            code = 0
            try:
                await case.step(made.controller.start, "start of a task that ends before it is healthy")
                code = await case.end_of(made)
            except ExitError as error:
                code = error.code

            assert code == 51, f"a task ended with 51 before it was healthy, and {code} is told"

    async def test_closing_the_executor_ends_a_start_that_waits_for_health(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(Program(steps=runs().steps, health=Health(interval=0.3, retries=1000)))
            starting = begin(made.controller.start())
            await case.ready(made.task, runs())

            await case.soon(case.executor.aclose(), "aclose of the executor")

            _, pending = await asyncio.wait([starting], timeout=subject.patience)
            await case.cancelled(starting, "start")
            assert not pending, "a start goes on to wait for health after aclose of the executor"

    async def test_without_a_check_nobody_asks_for_health(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=(BecomeSick(), Pause(1.0), Exit(0))))

            code = await case.end_of(made)

            assert code == 0, f"a task without a health check ended with {code} instead of 0"

    async def test_a_check_that_is_switched_off_is_none(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            off = Health(test=NO_HEALTH_TEST, interval=0.2, retries=1)
            made = await case.started(Program(steps=runs().steps, health=off))

            await case.step(made.controller.shutdown, "shutdown")

            code = await case.end_of(made)
            assert code == 0, f"a task whose health check is switched off ended with {code} instead of 0"
