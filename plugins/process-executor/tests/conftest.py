"""An executor of plain processes that leaves nothing of a test behind, and one file of these tests at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from swarmcore_process_executor.executor import ProcessExecutor

from swarmcore.testing.process_tasks import NOTHING, process_task


@pytest.fixture(scope="module", autouse=True)
def _one_file_at_a_time() -> Iterator[None]:
    # Control groups and working folders are the machine's, by the task's id, and tests of several files have the same.
    lock = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor(tmp_path)
    yield executor
    tasks = tmp_path / "tasks"
    for left in tasks.iterdir() if tasks.exists() else ():
        controller = await executor.recover(process_task("true", task_id=left.name), None, NOTHING)
        if controller is not None:
            await controller.remove()
    await executor.aclose()
