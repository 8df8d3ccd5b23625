"""Where a task's process works, what its user reaches there, and that it is gone with the task."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from swarmcore_process_executor import folders
from swarmcore_process_executor.executor import ProcessExecutor
from swarmcore_process_executor.folders import WORK_ROOT

from swarmcore.plugin.executor import TaskRejectedError
from swarmcore.testing.process_tasks import NOTHING, process_task, shell, started


async def test_a_user_reaches_its_working_folder_by_its_name_and_nothing_of_it_is_left(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    task = shell('pwd; touch "$PWD/mine" && cd / && cd "$OLDPWD" && echo back', user="nobody", dir="a/b")
    controller = await started(executor, task)
    await controller.wait()
    place, *said = (tmp_path / "tasks/task1/stdout").read_text().splitlines()
    owner = (WORK_ROOT / "task1/a/b").stat().st_uid

    await controller.remove()

    assert (place, said, owner) == (str(WORK_ROOT / "task1/a/b"), ["back"], 65534)
    assert not (WORK_ROOT / "task1").exists()


async def test_a_folder_of_the_tasks_own_is_made_below_its_working_folder(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    controller = await started(executor, shell("pwd", dir="a/b"))

    await controller.wait()

    assert (tmp_path / "tasks/task1/stdout").read_text() == f"{tmp_path}/tasks/task1/work/a/b\n"


async def test_what_was_made_for_a_task_that_was_rejected_is_found_again(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    (tmp_path / "tasks/task1/work").mkdir(parents=True)

    controller = await executor.recover(process_task("true"), None, NOTHING)
    assert controller is not None
    await controller.remove()

    assert list((tmp_path / "tasks").iterdir()) == []


async def test_a_field_of_a_later_version_is_refused(executor: ProcessExecutor) -> None:
    task = process_task("true")
    task.spec.generic.payload.value += b"\xf8\x3f\x01"

    with pytest.raises(
        TaskRejectedError, match=r"swarmcore\.v1\.ProcessSpec: this version does not know its field 1023"
    ):
        await executor.controller(task, NOTHING)


async def test_a_prepare_that_was_cancelled_is_over_before_anything_else_is_done(
    executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, make_work = threading.Event(), folders.make_work

    def slow(*given: Any) -> Path:
        assert gate.wait(10)
        return make_work(*given)

    monkeypatch.setattr(folders, "make_work", slow)
    controller = await executor.controller(process_task("true"), NOTHING)
    first = asyncio.ensure_future(controller.prepare())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    removing = asyncio.ensure_future(controller.remove())
    await asyncio.wait([first, removing], return_when=asyncio.FIRST_COMPLETED)
    gate.set()

    await removing

    assert first.cancelled()
    assert list((tmp_path / "tasks").iterdir()) == []
