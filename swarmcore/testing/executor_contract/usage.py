"""Checks of what an executor tells of the resources that a task uses."""

from __future__ import annotations

from dataclasses import fields

from swarmcore.plugin.executor import ExecutorError, TaskUsage, UsageSource
from swarmcore.testing.executor_contract.case import Case, Made, case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import runs
from swarmcore.testing.executor_contract.subject import Subject

TOLD_SECONDS = 5.0
"""An operator waits for it; on a busy machine longer than the second or two that it should take."""


class UsageContract:
    """For executors whose controllers tell what a task uses."""

    pytestmark = in_a_loop

    async def test_what_a_running_task_uses_is_told(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            used = await _usage(case, await case.started(runs()))

            assert used.cpu_seconds is not None or used.memory_bytes is not None, f"nothing is told: {used}"

    async def test_no_figure_is_below_zero(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            used = await _usage(case, await case.started(runs()))

            figures = {each.name: getattr(used, each.name) for each in fields(used)}
            wrong = {name: figure for name, figure in figures.items() if figure is not None and figure < 0}
            assert not wrong, f"a task uses {wrong}"

    async def test_processor_time_never_falls(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            told = [(await _usage(case, made)).cpu_seconds or 0.0 for _ in range(3)]

            assert told == sorted(told), f"the processor time of a task was told as {told}"

    async def test_a_task_that_was_removed_uses_nothing(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            await case.removed(made)

            used = None
            try:
                used = await _usage(case, made)
            except ExecutorError:
                pass

            assert used is None, f"a task that was removed uses {used}"


async def _usage(case: Case, made: Made) -> TaskUsage:
    assert isinstance(made.controller, UsageSource), "the controller can't tell what a task uses"
    return await case.soon(made.controller.usage(), "usage", seconds=max(TOLD_SECONDS, case.subject.patience / 3))
