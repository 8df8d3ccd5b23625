"""One task as one container. Every wait is for news from the event stream; the engine is then asked how things are."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import ContainerStatus, PortStatus
from swarmcore.plugin import containers
from swarmcore.plugin.engine_exec import container_usage, start_command
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    ExecOptions,
    ExecSession,
    ExitError,
    LogLine,
    LogOptions,
    TaskPreparedError,
    TaskRejectedError,
    TaskStartedError,
    TaskUsage,
    TemporaryError,
)
from swarmcore.plugin.task_files import MemoryFolder
from swarmcore_docker_executor import spec
from swarmcore_docker_executor.answers import Answers, end
from swarmcore_docker_executor.engine import Engine, EngineError
from swarmcore_docker_executor.events import Events, Watcher
from swarmcore_docker_executor.images import Images
from swarmcore_docker_executor.logs import LogReader

RECHECK_SECONDS = 30.0
"""Level-triggered: even without news, a running container is looked at this often."""
KILL_SECONDS = 10.0

Inspected = dict[str, Any]
T = TypeVar("T")


class ContainerGoneError(TaskRejectedError):
    """The container was removed behind our back."""


class DockerController(Controller):
    """Drives the container of one task."""

    def __init__(
        self,
        engine: Engine,
        events: Events,
        answers: Answers,
        images: Images,
        memory: MemoryFolder,
        task: Task,
        dependencies: Dependencies,
        node: Callable[[], Node | None] = lambda: None,
    ) -> None:
        """`node` tells this node as the managers see it, once they have said it: templates name it."""
        self._engine = engine
        self._events = events
        self._answers = answers
        self._images = images
        self._memory = memory
        self._task = task
        self._dependencies = dependencies
        self._node = node
        self._name = containers.container_name(task)
        self._seen: Inspected | None = None
        self._is_fresh = False
        """Made by this object and never started: what the engine would say of it is known."""
        self._under_way: asyncio.Task[Any] | None = None
        """What makes files or the container, or starts it: it is carried out, waited for or not."""
        self._watchers: set[Watcher] = set()
        self._reading: set[asyncio.StreamWriter] = set()
        self._is_closed = False

    async def update(self, task: Task) -> None:
        self._task = task

    # Life

    async def prepare(self) -> None:
        node = self._node()
        request = spec.create_request(
            containers.expanded(self._task, node), api=self._engine.api, host=self._engine.host
        )
        await self._settle()
        container = self._task.spec.container
        await self._images.fetch(container.image, container.pull_options.registry_auth)
        files = await self._uninterrupted(
            self._engine.run(lambda: self._memory.write(self._task, self._dependencies, node))
        )
        request["HostConfig"]["Mounts"] += [
            {"Type": "bind", "Source": str(path), "Target": file.target, "ReadOnly": True} for path, file in files
        ]
        try:
            await self._uninterrupted(self._create(request))
        except EngineError as error:
            if error.code == 404 and self._images.doubt(container.image, container.pull_options.registry_auth):
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
        self._remember(made["Id"])
        self._is_fresh = True

    async def start(self) -> None:
        await self._settle()
        found = None if self._is_fresh else await self._inspect()
        if found is None or found["State"]["Status"] == "created":
            self._is_fresh = False
            try:
                await self._uninterrupted(self._engine.call("POST", f"/containers/{self._id}/start"))
            except EngineError as error:
                raise TaskRejectedError(str(error)) from error
            found = await self._inspect()
        elif not self._waits_for_health(found):
            raise TaskStartedError(f"container {self._name!r} was started before")
        if containers.has_healthcheck(found):
            await self._wait_healthy()

    async def wait(self) -> None:
        with self._watch() as watcher:
            while True:
                try:
                    found = await self._inspect()
                except TemporaryError:
                    # The engine is away. What runs may well go on; the stream wakes us when it answers again.
                    await watcher.wait(RECHECK_SECONDS)
                    continue
                _raise_if_ended(found)
                if found["State"]["Status"] == "exited":
                    return
                if _health(found) == "unhealthy":
                    await self.shutdown()
                    raise ExitError(1, "unhealthy container")
                await watcher.wait(RECHECK_SECONDS)

    async def _wait_healthy(self) -> None:
        with self._watch() as watcher:
            while True:
                found = await self._inspect()
                _raise_if_ended(found)
                if found["State"]["Status"] == "exited" or _health(found) == "healthy":
                    return
                if _health(found) == "unhealthy":
                    await self.shutdown()
                    raise ExitError(1, "unhealthy container")
                await watcher.wait(RECHECK_SECONDS)

    @staticmethod
    def _waits_for_health(found: Inspected) -> bool:
        return bool(found["State"]["Status"] == "running" and _health(found) == "starting")

    async def shutdown(self) -> None:
        await self._settle()
        signal = self._task.spec.container.stop_signal or await self._stop_signal()
        if not await self._signal(signal):
            return
        if not await self._wait_stopped(containers.stop_grace(self._task)):
            await self.terminate()

    async def terminate(self) -> None:
        await self._settle()
        if await self._signal("SIGKILL") and not await self._wait_stopped(KILL_SECONDS):
            raise TemporaryError(f"container {self._name!r} does not end after SIGKILL")

    async def remove(self) -> None:
        await self._settle()
        found = await self._find()
        if found is not None:
            try:
                await self._engine.call("DELETE", f"/containers/{found['Id']}", params={"force": "1", "v": "1"})
            except EngineError as error:
                if error.code >= 500:
                    # Such as a file system that is still busy: what was made must not stay for ever.
                    raise TemporaryError(str(error)) from error
                # 404: gone. 409: another removal is under way.
                if error.code not in (404, 409):
                    raise
        await self._engine.run(lambda: self._memory.remove(self._task.id))

    async def aclose(self) -> None:
        self._is_closed = True
        if self._under_way is not None:
            self._under_way.cancel()
        for watcher in self._watchers:
            watcher.close()
        end(self._reading)

    async def exec(self, options: ExecOptions) -> ExecSession:
        """Run a command in the container."""
        return await start_command(self._engine.http, self._id, options)

    async def usage(self) -> TaskUsage:
        """What the container uses."""
        return await container_usage(self._engine.http, self._id)

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """What the container printed; with `follow` until it ends. Nothing where there is none."""
        reader = LogReader(
            answers=self._answers,
            api_version=self._engine.api_version,
            container=self._id,
            has_terminal=self._task.spec.container.tty,
            held=self._reading,
        )
        return reader.lines(options)

    @contextlib.contextmanager
    def _watch(self) -> Iterator[Watcher]:
        """Hear of the container while inside."""
        with self._events.watch(self._name) as watcher:
            self._watchers.add(watcher)
            if self._is_closed:
                watcher.close()
            try:
                yield watcher
            finally:
                self._watchers.discard(watcher)

    async def _uninterrupted(self, request: Coroutine[Any, Any, T]) -> T:
        """Await what goes on when the caller is cancelled; `_settle` waits for its end."""
        self._under_way = asyncio.create_task(request, name=f"container {self._name}")
        self._under_way.add_done_callback(_take_note)
        return await asyncio.shield(self._under_way)

    async def _settle(self) -> None:
        """Return when nothing is under way: what is asked of the engine next must find how things are."""
        if self._under_way is not None and not self._under_way.done():
            await asyncio.wait([self._under_way])

    # What the core shows

    async def container_status(self) -> ContainerStatus | None:
        found = self._seen
        if found is None:
            return ContainerStatus(container_id=self._id) if self.handle else None
        return containers.container_status(found)

    async def port_status(self) -> PortStatus | None:
        return containers.port_status(self._task, self._seen or {})

    # Asking the engine

    @property
    def _id(self) -> str:
        return self.handle.decode() if self.handle else self._name

    def _remember(self, container_id: str) -> None:
        self.handle = container_id.encode()

    async def _inspect(self) -> Inspected:
        found = await self._find()
        if found is None:
            raise ContainerGoneError("container destroyed")
        return found

    async def _find(self) -> Inspected | None:
        """The container of this task, by id or by name; None where there is none."""
        try:
            found: Inspected = await self._engine.call("GET", f"/containers/{self._id}/json")
        except EngineError as error:
            if error.code == 404:
                return None
            # Only that it does not know right now: an engine that ends or starts says so too.
            raise TemporaryError(str(error)) from error
        owner = (found["Config"].get("Labels") or {}).get(containers.LABEL_TASK_ID)
        if owner != self._task.id:
            raise TaskRejectedError(f"a container named {self._name!r} exists and belongs to something else")
        self._seen = found
        self._remember(found["Id"])
        return found

    async def attach(self) -> bool:
        """Find the container again after a restart; False where nothing is left of it."""
        return await self._find() is not None

    async def _stop_signal(self) -> str:
        with contextlib.suppress(ContainerGoneError):
            found = self._seen or await self._inspect()
            return str(found["Config"].get("StopSignal") or "SIGTERM")
        return "SIGTERM"

    async def _signal(self, signal: str) -> bool:
        """Send a signal; False where there is nothing left to send it to."""
        try:
            await self._engine.call("POST", f"/containers/{self._id}/kill", params={"signal": signal})
        except EngineError as error:
            if error.code in (404, 409):
                return False
            raise
        return True

    async def _wait_stopped(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with self._watch() as watcher:
            while True:
                try:
                    if not (await self._inspect())["State"]["Running"]:
                        return True
                except ContainerGoneError:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                await watcher.wait(left)


def _take_note(request: asyncio.Task[Any]) -> None:
    """The error was for whoever waited; nobody may have."""
    if not request.cancelled():
        request.exception()


def _health(found: Inspected) -> str:
    return str((found["State"].get("Health") or {}).get("Status") or "")


def _raise_if_ended(found: Inspected) -> None:
    state = found["State"]
    if state["Status"] == "dead" or (state["Status"] == "exited" and int(state["ExitCode"]) != 0):
        cause = "out of memory" if state.get("OOMKilled") else str(state.get("Error") or "")
        raise ExitError(int(state["ExitCode"]), cause)
