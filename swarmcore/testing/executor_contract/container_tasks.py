"""What checks of a container engine stand on: tasks of a service `fields`, started and removed, and what they print.

Used by `fields.py` and `faults.py`, whose authors' subclasses say in a fixture which engine it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    Executor,
    ExecutorFactory,
    ExitError,
    LogLine,
    LogOptions,
    LogSource,
)

IMAGE: Final = "redis:3.0.5"
NOTHING: Final = Dependencies()
FOLLOW: Final = LogOptions(follow=True)
PRINT_SECONDS: Final = 20.0
SERVER: Final = "trap 'exit 0' TERM; sleep 1000 & wait"
"""Runs until it is told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    """An engine with the image `redis:3.0.5`, which is busybox."""

    factory: ExecutorFactory
    address: str
    """Of the executor's engine."""
    cli: Callable[..., str]
    """Runs the engine's own client with these arguments, and returns what it printed; blocks."""
    remove: tuple[str, ...] = ("rm", "--force")
    """What its client removes a container with, at once."""
    refuses: frozenset[str] = frozenset()
    """Optional fields that this engine can't honour, such as `swap_bytes`: they must be refused by name."""
    namespace: str = ""
    """Of its network, where that is not the machine's."""
    registry_port: int = 0
    """Where it takes a registry on loopback without TLS; 0: anywhere."""

    async def run(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.cli, *arguments)

    async def inspect(self, task: Task) -> Mapping[str, Any]:
        """What the engine says of a task's container, in Docker's words."""
        found: Mapping[str, Any] = json.loads(await self.run("inspect", name_of(task)))[0]
        return found


def name_of(task: Task) -> str:
    """Of its container."""
    return f"{task.service_annotations.name}.{task.slot}.{task.id}"


def make_task(script: str = SERVER) -> Task:
    """A task that runs a shell script."""
    task = Task(id=new_id(), service_id=new_id(), slot=1, node_id=new_id())
    task.service_annotations.name = "fields"
    task.spec.container.image = IMAGE
    task.spec.container.command.extend(["sh", "-c", script])
    task.spec.container.stop_grace_period.seconds = 2
    return task


@contextlib.asynccontextmanager
async def started(executor: Executor, task: Task, dependencies: Dependencies = NOTHING) -> AsyncIterator[Controller]:
    """A task that runs while inside; removed afterwards, whatever came of it."""
    controller = await executor.controller(task, dependencies)
    try:
        await controller.prepare()
        await controller.start()
        yield controller
    finally:
        await controller.remove()


async def printed(controller: Controller) -> str:
    """What it has printed so far."""
    assert isinstance(controller, LogSource), "the controller has no logs"
    return b"".join([line.data async for line in controller.logs(LogOptions())]).decode()


async def until_printed(controller: Controller, words: str) -> str:
    """What it has printed by the line that has these words."""
    assert isinstance(controller, LogSource), "the controller has no logs"
    said = ""
    async with asyncio.timeout(PRINT_SECONDS):
        async with contextlib.aclosing(cast(AsyncGenerator[LogLine, None], controller.logs(FOLLOW))) as lines:
            async for line in lines:
                said += line.data.decode()
                if words in said:
                    break
    assert words in said, f"{words!r} was not printed: {said!r}"
    return said


async def output(executor: Executor, task: Task, dependencies: Dependencies = NOTHING) -> str:
    """All that a task prints which ends by itself, well or not."""
    async with started(executor, task, dependencies) as controller:
        with contextlib.suppress(ExitError):
            await controller.wait()
        return await printed(controller)
