"""One task as one container of a Docker Engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.plugin import containers
from swarmcore.plugin.container_controller import ContainerController
from swarmcore.plugin.container_events import ContainerEvents
from swarmcore.plugin.engine_calls import EngineError
from swarmcore.plugin.executor import (
    Dependencies,
    LogLine,
    LogOptions,
    TaskPreparedError,
    TaskRejectedError,
    TemporaryError,
)
from swarmcore.plugin.task_files import MemoryFolder
from swarmcore_docker_executor import spec
from swarmcore_docker_executor.answers import Answers, end
from swarmcore_docker_executor.engine import Engine
from swarmcore_docker_executor.images import Images
from swarmcore_docker_executor.logs import LogReader


@dataclass(frozen=True, slots=True)
class Parts:
    """What the controllers of one executor share."""

    engine: Engine
    events: ContainerEvents
    answers: Answers
    images: Images
    memory: MemoryFolder
    node: Callable[[], Node | None] = lambda: None
    """This node as the managers see it, once they have said it: templates name it."""


class DockerController(ContainerController):
    """Drives the container of one task."""

    def __init__(self, parts: Parts, task: Task, dependencies: Dependencies) -> None:
        super().__init__(parts.engine, parts.events, parts.memory, task)
        self._parts = parts
        self._engine = parts.engine
        self._dependencies = dependencies
        self._reading: set[asyncio.StreamWriter] = set()

    async def prepare(self) -> None:
        node = self._parts.node()
        request = spec.create_request(
            containers.expanded(self._task, node), api=self._engine.api_number, host=self._engine.host
        )
        await self._settle()
        container = self._task.spec.container
        await self._parts.images.fetch(container.image, container.pull_options.registry_auth)
        files = await self._uninterrupted(
            self._engine.run(lambda: self._memory.write(self._task, self._dependencies, node))
        )
        request["HostConfig"]["Mounts"] += [
            {"Type": "bind", "Source": str(path), "Target": file.target, "ReadOnly": True} for path, file in files
        ]
        try:
            await self._uninterrupted(self._create(request))
        except EngineError as error:
            if error.code == 404 and self._parts.images.doubt(container.image, container.pull_options.registry_auth):
                # Somebody removed the image since it was looked for.
                raise TemporaryError(str(error)) from error
            if error.code != 409:
                raise TaskRejectedError(str(error)) from error
            if await self._find() is None:
                # An earlier request for it, or a removal, is not finished yet.
                raise TemporaryError(str(error)) from error
            raise TaskPreparedError(f"container {self._name!r} exists already") from error

    async def _create(self, request: dict[str, Any]) -> None:
        made = await self._engine.call("POST", "/containers/create", params={"name": self._name}, body=request)
        self._made(made["Id"])

    async def _delete(self, container_id: str) -> None:
        try:
            await self._engine.call("DELETE", f"/containers/{container_id}", params={"force": "1", "v": "1"})
        except EngineError as error:
            if error.code >= 500:
                # Such as a file system that is still busy: what was made must not stay for ever.
                raise TemporaryError(str(error)) from error
            # 404: gone. 409: another removal is under way.
            if error.code not in (404, 409):
                raise

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """What the container printed; with `follow` until it ends. Nothing where there is none."""
        reader = LogReader(
            answers=self._parts.answers,
            api_version=self._engine.api_version,
            container=self._id,
            has_terminal=self._task.spec.container.tty,
            held=self._reading,
        )
        return reader.lines(options)

    def _end_reading(self) -> None:
        end(self._reading)
