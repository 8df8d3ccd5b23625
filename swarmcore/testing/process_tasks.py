"""Tasks that run plain processes, for tests of what does so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.process_pb2 import ProcessSpec
from swarmcore.plugin.executor import Controller, Dependencies, Executor

NOTHING = Dependencies()
EVENTUALLY_SECONDS = 10.0


def process_task(*command: str, task_id: str = "task1", **fields: Any) -> Task:
    """A task of the runtime `process`; `fields` are those of its `ProcessSpec`."""
    task = Task(id=task_id)
    task.spec.generic.kind = "process"
    task.spec.generic.payload.Pack(ProcessSpec(command=command, **fields))
    return task


def shell(script: str, **fields: Any) -> Task:
    """The same for the shell."""
    return process_task("sh", "-c", script, **fields)


async def started(executor: Executor, task: Task) -> Controller:
    """The controller of a task that runs."""
    controller = await executor.controller(task, NOTHING)
    await controller.prepare()
    await controller.start()
    return controller


async def eventually(fact: Callable[[], object]) -> None:
    """Wait until `fact` is true. TimeoutError: it was not within ten seconds."""
    async with asyncio.timeout(EVENTUALLY_SECONDS):
        while not fact():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)
