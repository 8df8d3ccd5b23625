"""An executor of plain processes that leaves nothing of a test behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_process_executor.executor import ProcessExecutor

from swarmcore.testing.process_tasks import NOTHING, process_task


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
