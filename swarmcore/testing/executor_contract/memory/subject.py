"""How the suite uses the model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import (
    Dependencies,
    HostInfo,
)
from swarmcore.testing.executor_contract.memory.boxes import ModelEngine
from swarmcore.testing.executor_contract.memory.executor import RUNTIME, ModelExecutor, ModelFactory
from swarmcore.testing.executor_contract.program import (
    Program,
)
from swarmcore.testing.executor_contract.subject import Subject


class ModelSubject(Subject):
    """A model engine of its own."""

    patience: ClassVar[float] = 30.0
    log_resolution: ClassVar[float] = 0.001

    def __init__(self, kind: type[ModelExecutor] = ModelExecutor, factory: type[ModelFactory] = ModelFactory) -> None:
        self._engine = ModelEngine()
        self._factory = factory(self._engine, kind)

    @property
    def factory(self) -> ModelFactory:
        return self._factory

    @property
    def host(self) -> HostInfo:
        return HostInfo(state_dir="/nonexistent")

    def make_task(self, program: Program) -> Task:
        task = Task(id=new_id())
        task.spec.generic.kind = RUNTIME
        self._engine.programs[task.id] = program
        return task

    def command_of(self, program: Program) -> Sequence[str]:
        id = new_id()
        self._engine.programs[id] = program
        return (id,)

    async def running(self, task: Task) -> str | None:
        box = self._engine.boxes.get(task.id) or self._engine.orphans.get(task.id)
        return f"run {box.run}" if box is not None and box.is_running else None

    async def printed(self, task: Task) -> bytes:
        box = self._engine.boxes.get(task.id)
        return b"".join(line.data for line in box.lines if line.stream == 1) if box is not None else b""

    async def leftovers(self) -> set[str]:
        return self._engine.leftovers()

    async def clean_up(self) -> None:
        await self.start_engine()
        self._engine.clear()
        await asyncio.sleep(0)

    async def stop_engine(self) -> None:
        self._engine.is_up = False
        self._engine.tell_all()

    async def start_engine(self) -> None:
        self._engine.is_up = True
        self._engine.tell_all()

    async def start_and_die(self, tasks: Sequence[Task]) -> Mapping[str, bytes | None]:
        """In memory nothing can be killed: an executor is dropped as it stands."""
        executor = await self._factory.create(self.host)
        handles = {}
        for task in tasks:
            controller = await executor.controller(task, Dependencies())
            await controller.prepare()
            await controller.start()
            handles[task.id] = controller.handle
        self._engine.dead.append(executor)
        return handles
