"""Checks of an engine that stops and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from swarmcore.plugin.executor import ExitError, TemporaryError
from swarmcore.testing.executor_contract.case import NOTHING, begin, case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import runs
from swarmcore.testing.executor_contract.subject import Subject


class EngineContract:
    """An engine that is away ends no task by itself, and nothing has to be made anew when it is back."""

    pytestmark = in_a_loop

    async def test_calls_fail_for_now_while_the_engine_is_away_and_work_when_it_is_back(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            fresh = await case.make(runs())
            prepared, started = await case.prepared(runs()), await case.started(runs())
            lost = subject.make_task(runs())
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "describe": case.executor.describe,
                "prepare": fresh.controller.prepare,
                "start": prepared.controller.start,
                "shutdown": started.controller.shutdown,
                "terminate": started.controller.terminate,
                "remove": started.controller.remove,
                "recover": lambda: case.executor.recover(lost, None, NOTHING),
            }
            await subject.stop_engine()
            try:
                for name, call in calls.items():
                    try:
                        await case.soon(call(), f"{name} while the engine is away")
                        error: Exception | None = None
                    except AssertionError:
                        raise
                    except Exception as raised:  # noqa: BLE001 - which it is is what the check is about
                        error = raised
                    assert isinstance(error, TemporaryError), f"{name}, engine away: {error!r}, no TemporaryError"
            finally:
                await subject.start_engine()

            await case.step(case.executor.describe, "describe after the engine came back")
            await case.step(fresh.controller.prepare, "prepare after the engine came back")
            await case.step(fresh.controller.start, "start after the engine came back")
            await case.run_of(fresh.task)
            for made in (fresh, prepared, started):
                await case.step(made.controller.shutdown, "shutdown after the engine came back")
                await case.removed(made)

    async def test_a_wait_outlives_the_engine_and_hears_of_the_end_when_it_is_back(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            waiting = begin(made.controller.wait())
            await asyncio.sleep(0.1)
            await subject.stop_engine()
            try:
                done, _ = await asyncio.wait([waiting], timeout=1.0)
                # An engine may say before it goes that the task ended with it. That it went is no end.
                outcome = waiting.exception() if done else None
                is_over = bool(done) and outcome is not None and not isinstance(outcome, ExitError)
            finally:
                await subject.start_engine()
            assert not is_over, f"a wait ended because the engine was away: {outcome!r}"

            await case.step(made.controller.terminate, "terminate after the engine came back")

            _, pending = await asyncio.wait([waiting], timeout=subject.patience)
            if pending:
                await case.cancelled(waiting, "wait")
            assert not pending, "a wait that began before the engine stopped did not hear of the task's end afterwards"
            error = waiting.exception()
            assert error is None or isinstance(error, ExitError), f"the wait ended with {error!r}"
