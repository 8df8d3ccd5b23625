"""The executor of the model, and its factory."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    Executor,
    HostInfo,
    TaskRejectedError,
    TemporaryError,
)
from swarmcore.testing.executor_contract.memory.boxes import Box, ModelEngine
from swarmcore.testing.executor_contract.memory.controller import LATENCY_SECONDS, ModelController

RUNTIME: Final = "model"


class ModelExecutor(Executor):
    """The executor of a model engine."""

    controller_kind: ClassVar[type[ModelController]] = ModelController

    def __init__(self, engine: ModelEngine) -> None:
        self.engine = engine
        self.controllers: list[ModelController] = []
        self.is_closed = False
        self.slots = asyncio.Semaphore(6)
        """For spoiled executors, as are the next two."""
        self.waiting = 0
        self.litter: list[asyncio.Task[None]] = []

    async def describe(self) -> NodeDescription:
        await self.ask()
        description = NodeDescription(hostname="model")
        description.platform.os, description.platform.architecture = "linux", "x86_64"
        description.resources.nano_cpus, description.resources.memory_bytes = 1_000_000_000, 1 << 30
        return description

    async def configure(self, node: Node) -> None:
        """A model has nothing to configure."""

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        if task.spec.generic.kind != RUNTIME:
            raise TaskRejectedError(f"task.generic.kind {task.spec.generic.kind!r} is not {RUNTIME!r}")
        return self.made(self.controller_kind(self, task))

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        await self.ask()
        box = self.engine.boxes.get(task.id)
        if not self.knows(box, handle):
            return None
        controller = self.made(self.controller_kind(self, task, is_recovered=True))
        controller.handle = handle
        return controller

    def knows(self, box: Box | None, handle: bytes | None) -> bool:
        return box is not None

    async def aclose(self) -> None:
        self.is_closed = True
        for controller in self.controllers:
            controller.end_pending()

    def made(self, controller: ModelController) -> ModelController:
        self.controllers.append(controller)
        return controller

    async def ask(self) -> None:
        await asyncio.sleep(LATENCY_SECONDS)
        if not self.engine.is_up:
            raise TemporaryError("the engine is away")


class ModelFactory:
    """Offers executors for one model engine."""

    name = RUNTIME
    runtimes = frozenset({RUNTIME})
    automatic = 0

    def __init__(self, engine: ModelEngine, kind: type[ModelExecutor] = ModelExecutor) -> None:
        self.engine = engine
        self.kind = kind

    async def available(self, host: HostInfo) -> bool:
        return self.engine.is_up

    async def create(self, host: HostInfo) -> Executor:
        return self.kind(self.engine)
