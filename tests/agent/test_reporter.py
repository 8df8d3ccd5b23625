"""What the managers hear: batches, the latest status, never a lower state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from swarmcore.agent.reporter import MAX_BATCH, Report, Reporter
from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.errors import PermissionDeniedError, UnavailableError
from swarmcore.testing.clock import let_the_loop_run

READY, RUNNING, FAILED = TaskState.READY, TaskState.RUNNING, TaskState.FAILED


class Manager:
    """Takes reports, one call at a time, when it is let."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, int]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refused: set[str] = set()
        self.error: Exception | None = None

    async def send(self, reports: Sequence[Report]) -> None:
        self.calls.append([(task_id, status.state) for task_id, status in reports])
        await self.open.wait()
        if self.error is not None:
            raise self.error
        if any(task_id in self.refused for task_id, _ in reports):
            raise PermissionDeniedError("cannot update a task not assigned this node")


@asynccontextmanager
async def reporting(reporter: Reporter, manager: Manager) -> AsyncIterator[None]:
    run = asyncio.ensure_future(reporter.run(manager.send))
    yield
    run.cancel()
    await asyncio.wait([run])


def status(state: TaskState.ValueType) -> TaskStatus:
    return TaskStatus(state=state)


async def test_an_idle_reporter_sends_at_once_and_a_busy_one_in_batches() -> None:
    reporter, manager = Reporter(), Manager()
    manager.open.clear()
    async with reporting(reporter, manager):
        reporter.put("a", status(READY))
        await let_the_loop_run(3)
        assert manager.calls == [[("a", READY)]]

        reporter.put("b", status(READY))
        reporter.put("a", status(RUNNING))
        reporter.put("b", status(RUNNING))
        manager.open.set()
        await let_the_loop_run()

    assert manager.calls[1:] == [[("a", RUNNING), ("b", RUNNING)]]
    assert not reporter.has_pending


async def test_a_lower_state_is_never_sent() -> None:
    reporter, manager = Reporter(), Manager()
    async with reporting(reporter, manager):
        reporter.put("a", status(RUNNING))
        reporter.put("a", status(READY))
        await let_the_loop_run()
        reporter.put("a", status(READY))
        await let_the_loop_run()

    assert manager.calls == [[("a", RUNNING)]]


async def test_what_was_not_delivered_waits_for_the_next_session() -> None:
    reporter, manager = Reporter(), Manager()
    manager.error = UnavailableError("gone")
    reporter.put("a", status(READY))
    with pytest.raises(UnavailableError):
        await reporter.run(manager.send)

    manager.error = None
    reporter.put("a", status(FAILED))
    async with reporting(reporter, manager):
        await let_the_loop_run()

    assert manager.calls == [[("a", READY)], [("a", FAILED)]]


async def test_one_refused_report_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    reporter, manager = Reporter(), Manager()
    manager.refused = {"t3"}
    for number in range(8):
        reporter.put(f"t{number}", status(RUNNING))
    async with reporting(reporter, manager):
        await let_the_loop_run()

    delivered = {id for call in manager.calls for id, _ in call if not {"t3"} & {other for other, _ in call}}
    assert delivered == {f"t{number}" for number in range(8)} - {"t3"}
    assert not reporter.has_pending
    assert "refuse the status of task t3" in caplog.text


async def test_a_batch_is_bounded() -> None:
    reporter, manager = Reporter(), Manager()
    for number in range(MAX_BATCH + 5):
        reporter.put(f"t{number}", status(RUNNING))
    async with reporting(reporter, manager):
        await let_the_loop_run()

    assert [len(call) for call in manager.calls] == [MAX_BATCH, 5]


async def test_large_statuses_share_no_call() -> None:
    reporter, manager = Reporter(), Manager()
    for number in range(4):
        reporter.put(f"t{number}", TaskStatus(state=FAILED, err="x" * 400_000))
    async with reporting(reporter, manager):
        await let_the_loop_run()

    assert [len(call) for call in manager.calls] == [2, 2]


async def test_a_new_session_hears_of_every_task_again() -> None:
    reporter, manager = Reporter(), Manager()
    async with reporting(reporter, manager):
        reporter.put("a", status(RUNNING))
        await let_the_loop_run()
        reporter.repeat([("a", status(RUNNING)), ("b", status(READY))])
        await let_the_loop_run()

    assert manager.calls[1:] == [[("a", RUNNING), ("b", READY)]]


async def test_a_task_that_is_gone_is_not_reported() -> None:
    reporter, manager = Reporter(), Manager()
    reporter.put("a", status(RUNNING))
    reporter.forget("a")
    async with reporting(reporter, manager):
        await let_the_loop_run()

    assert manager.calls == []
