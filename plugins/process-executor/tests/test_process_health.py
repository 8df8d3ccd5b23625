"""Health checks of plain processes: what counts as a failure, and when."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from swarmcore_process_executor.executor import ProcessExecutor
from swarmcore_process_executor.health import parse

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.process_pb2 import ProcessHealth
from swarmcore.plugin.executor import Controller, ExitError, TaskRejectedError, TaskStartedError
from swarmcore.testing.process_tasks import NOTHING, shell


def task_with(health: ProcessHealth, script: str = "exec sleep 600") -> Task:
    return shell(script, env=["COLOUR=blue"], health=health)


def check(script: str, **fields: float) -> ProcessHealth:
    return ProcessHealth(command=["sh", "-c", script], interval_seconds=0.1, **fields)  # type: ignore[arg-type]


async def prepared(executor: ProcessExecutor, task: Task) -> Controller:
    controller = await executor.controller(task, NOTHING)
    await controller.prepare()
    return controller


async def test_a_check_runs_in_the_folder_and_environment_of_its_task(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    controller = await prepared(executor, task_with(check('test "$COLOUR" = blue && pwd >where')))

    await controller.start()

    assert (tmp_path / "tasks/task1/work/where").read_text().strip().endswith("tasks/task1/work")


async def test_a_check_that_takes_too_long_has_failed_and_is_killed(executor: ProcessExecutor, tmp_path: Path) -> None:
    hanging = check("echo $$ >check; exec sleep 600", timeout_seconds=0.3, retries=1)
    controller = await prepared(executor, task_with(hanging))

    with pytest.raises(ExitError, match="unhealthy process"):
        await controller.start()

    pid = (tmp_path / "tasks/task1/work/check").read_text().strip()
    assert pid not in os.listdir("/proc")


async def test_a_check_whose_command_is_missing_has_failed(executor: ProcessExecutor) -> None:
    missing = ProcessHealth(command=["no-such-program"], interval_seconds=0.1, retries=1)
    controller = await prepared(executor, task_with(missing))

    with pytest.raises(ExitError, match="unhealthy process"):
        await controller.start()


async def test_failures_in_the_start_period_do_not_count(executor: ProcessExecutor, tmp_path: Path) -> None:
    late = check("echo >>asked; test $(wc -l <asked) -ge 3", retries=1, start_period_seconds=60)
    controller = await prepared(executor, task_with(late))

    await controller.start()

    assert (tmp_path / "tasks/task1/work/asked").read_text().count("\n") == 3


async def test_a_start_that_was_cut_short_goes_on_to_wait_for_health(executor: ProcessExecutor, tmp_path: Path) -> None:
    task = task_with(check("test -e ready", retries=1000))
    controller = await prepared(executor, task)
    starting = asyncio.ensure_future(controller.start())
    async with asyncio.timeout(10):
        while not (tmp_path / "tasks/task1/started").exists():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.wait([starting])
    later = await executor.recover(task, None, NOTHING)
    assert later is not None
    going_on = asyncio.ensure_future(later.start())
    await asyncio.wait([going_on], timeout=0.3)
    assert not going_on.done()

    (tmp_path / "tasks/task1/work/ready").touch()

    await going_on
    with pytest.raises(TaskStartedError):
        await later.start()


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (ProcessHealth(command=[""]), "process.health.command is no command"),
        (ProcessHealth(command=["a\0b"]), "process.health.command is no command"),
        (ProcessHealth(command=["true"], interval_seconds=0), "process.health.interval_seconds 0 is not between 0.1"),
        (ProcessHealth(command=["true"], timeout_seconds=1e9), "process.health.timeout_seconds 1e+09 is not between"),
        (
            ProcessHealth(command=["true"], start_period_seconds=float("nan")),
            "process.health.start_period_seconds nan is not between 0",
        ),
    ],
)
async def test_what_can_not_be_honoured_is_refused_by_its_name(
    executor: ProcessExecutor, health: ProcessHealth, words: str
) -> None:
    with pytest.raises(TaskRejectedError) as caught:
        await executor.controller(task_with(health), NOTHING)

    assert words in str(caught.value)


def test_without_a_command_nobody_asks() -> None:
    assert parse(ProcessHealth(interval_seconds=1)) is None
