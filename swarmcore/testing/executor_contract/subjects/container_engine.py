"""The subject for container engines that serve Docker's API: Docker itself, and Podman beside its own."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import Mount
from swarmcore.plugin.executor import ExecutorFactory, HostInfo
from swarmcore.testing.executor_contract.program import Program
from swarmcore.testing.executor_contract.subject import Subject
from swarmcore.testing.executor_contract.subjects.engine_api import EngineApi, filters, frames

SERVICE = "contract"
LABEL = "swarmcore.contract"
LABEL_TASK_ID = "com.docker.swarm.task.id"


class ContainerEngineSubject(Subject):
    """An engine behind a unix socket, with an image that has a POSIX shell and `sleep`."""

    patience: ClassVar[float] = 30.0

    def __init__(
        self,
        factory: ExecutorFactory,
        socket: str | Path,
        state_dir: str | Path,
        *,
        image: str,
        binary_log_driver: str = "",
        stop: Callable[[], object] | None = None,
        start: Callable[[], object] | None = None,
        api_socket: str | Path | None = None,
    ) -> None:
        """`binary_log_driver` keeps output that is no text, where the default one does not. `stop` and `start` act on
        the engine itself, and block. `api_socket`: where this subject asks the engine behind the executor's back, when
        that is not the executor's own socket.
        """
        self._factory = factory
        self._host = HostInfo(state_dir=str(state_dir), engine_addr=f"unix://{socket}")
        self._image = image
        self._binary_log_driver = binary_log_driver
        self._stop = stop
        self._start = start
        self._api = EngineApi(str(api_socket if api_socket is not None else socket))
        self._run = new_id()
        self._made: list[str] = []

    @property
    def factory(self) -> ExecutorFactory:
        return self._factory

    @property
    def host(self) -> HostInfo:
        return self._host

    def make_task(self, program: Program) -> Task:
        task = Task(id=new_id(), service_id=new_id(), slot=1, node_id=new_id())
        self._made.append(task.id)
        task.service_annotations.name = SERVICE
        container = task.spec.container
        container.image = self._image
        container.command.extend(program.command)
        container.labels[LABEL] = self._run
        container.stop_signal = program.stop_signal
        container.stop_grace_period.FromNanoseconds(int(program.grace * 1e9))
        if program.health is not None:
            container.healthcheck.test.extend(program.health.test)
            container.healthcheck.interval.FromNanoseconds(int(program.health.interval * 1e9))
            container.healthcheck.retries = program.health.retries
        if program.scratch:
            mount = container.mounts.add(type=Mount.VOLUME, target="/scratch")
            mount.volume_options.labels[LABEL] = self._run
        if program.is_binary and self._binary_log_driver:
            task.log_driver.name = self._binary_log_driver
        return task

    async def running(self, task: Task) -> str | None:
        found = await self._container(task)
        if found is None or not found["State"]["Running"]:
            return None
        return f"{found['Id']} {found['State']['StartedAt']}"

    async def printed(self, task: Task) -> bytes:
        found = await self._container(task)
        if found is None:
            return b""
        status, body = await self._api.raw("GET", f"/v1.41/containers/{found['Id']}/logs?stdout=1")
        return b"".join(data for _, data in frames(body)) if status == 200 else b""

    async def leftovers(self) -> set[str]:
        containers, volumes, networks = await asyncio.gather(self._containers(), self._volumes(), self._networks())
        return {
            *(f"container {each['Names'][0].lstrip('/')}" for each in containers),
            *(f"volume {each['Name']}" for each in volumes),
            *(f"network {each['Name']}" for each in networks),
            *(f"file {path}" for path in self._files()),
        }

    async def clean_up(self) -> None:
        await self.start_engine()
        await asyncio.gather(*(self._destroy(each["Id"]) for each in await self._containers()))
        for volume in await self._volumes():
            await self._api.raw("DELETE", f"/v1.41/volumes/{volume['Name']}?force=1")
        for path in self._files():
            shutil.rmtree(path, ignore_errors=True)

    async def stop_engine(self) -> None:
        if self._stop is None:
            await super().stop_engine()
        else:
            await asyncio.to_thread(self._stop)

    async def start_engine(self) -> None:
        if self._start is not None:
            await asyncio.to_thread(self._start)

    async def _destroy(self, container: str) -> None:
        # Podman would give a container its own grace period, even when it is to go by force.
        await self._api.raw("POST", f"/v1.41/containers/{container}/kill?signal=KILL")
        await self._api.raw("DELETE", f"/v1.41/containers/{container}?force=1&v=1")

    # What there is

    async def _container(self, task: Task) -> Any:
        query = filters(label=[f"{LABEL_TASK_ID}={task.id}"])
        for each in await self._api.ask("GET", f"/v1.41/containers/json?all=1&{query}") or ():
            return await self._api.ask("GET", f"/v1.41/containers/{each['Id']}/json")
        return None

    async def _containers(self) -> list[Any]:
        query = filters(label=[f"{LABEL}={self._run}"])
        return list(await self._api.ask("GET", f"/v1.41/containers/json?all=1&{query}") or ())

    async def _volumes(self) -> list[Any]:
        query = filters(label=[f"{LABEL}={self._run}"])
        return list((await self._api.ask("GET", f"/v1.41/volumes?{query}") or {}).get("Volumes") or ())

    async def _networks(self) -> list[Any]:
        """An executor that makes a network for a task names or labels it after the task."""
        ids = re.compile("|".join(self._made) or r"\Z.")
        return [each for each in await self._api.ask("GET", "/v1.41/networks") or () if ids.search(str(each))]

    def _files(self) -> list[Path]:
        return [path for path in Path(self._host.state_dir).rglob("*") if any(id in path.name for id in self._made)]


class PodmanEngineSubject(ContainerEngineSubject):
    """A Podman service, which tells the time of what was printed in whole seconds."""

    log_resolution: ClassVar[float] = 1.0
