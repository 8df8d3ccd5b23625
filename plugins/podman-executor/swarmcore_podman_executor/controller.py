"""One task as one container. Every wait is for news from the event stream; the engine is then asked how things are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import ContainerStatus, Mount, PortStatus
from swarmcore.plugin import containers
from swarmcore.plugin.engine_exec import container_usage, start_command
from swarmcore.plugin.engine_http import Answer
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
from swarmcore_podman_executor import differences, spec
from swarmcore_podman_executor.differences import Status
from swarmcore_podman_executor.engine import Engine, EngineError
from swarmcore_podman_executor.events import Events, Watcher
from swarmcore_podman_executor.health import LABEL, NO_CHECK, Checks, HealthCheck
from swarmcore_podman_executor.images import Images
from swarmcore_podman_executor.logs import read_logs

RECHECK_SECONDS = 30.0
"""Level-triggered: even without news, a running container is looked at this often."""
KILL_SECONDS = 10.0

Inspected = dict[str, Any]
T = TypeVar("T")


class ContainerGoneError(TaskRejectedError):
    """The container was removed behind our back."""


class Parts:
    """What the controllers of one executor share."""

    def __init__(self, engine: Engine, events: Events, images: Images, memory: MemoryFolder) -> None:
        self.engine = engine
        self.events = events
        self.images = images
        self.memory = memory
        self.checks = asyncio.Semaphore(32)
        """Places for health checks that run at once."""
        self.node: Node | None = None
        """This node as the managers see it, once they have said it: templates name it."""


class PodmanController(Controller):
    """Drives the container of one task."""

    def __init__(self, parts: Parts, task: Task, dependencies: Dependencies) -> None:
        self._parts = parts
        self._engine = parts.engine
        self._events = parts.events
        self._task = task
        self._dependencies = dependencies
        self._name = containers.container_name(task)
        self._seen: Inspected | None = None
        self._is_fresh = False
        """Made by this object and never started: what the engine would say of it is known."""
        self._checks: Checks | None = None
        self._under_way: asyncio.Task[Any] | None = None
        """What makes files or the container, or starts it: it is carried out, waited for or not."""
        self._watchers: set[Watcher] = set()
        self._answers: set[Answer] = set()
        """Output that is being read."""
        self._has_killed = False
        self._is_closed = False

    async def update(self, task: Task) -> None:
        self._task = task

    # Life

    async def prepare(self) -> None:
        node = self._parts.node
        task = containers.expanded(self._task, node)
        spec.refuse_unsupported(task, self._engine.host)
        await self._settle()
        container = task.spec.container
        image = await self._parts.images.get(container.image, container.pull_options.registry_auth)
        check = HealthCheck.of(task, image.health)
        request = spec.create_request(
            task,
            image=image.reference,
            host=self._engine.host,
            health=check.request() if check is not None else NO_CHECK,
        )
        if check is not None:
            request["labels"][LABEL] = check.label()
        try:
            await self._uninterrupted(self._make(task, request))
        except EngineError as error:
            if differences.is_no_image(error.code, str(error)):
                # Somebody removed the image since it was looked for.
                self._parts.images.doubt(container.image, container.pull_options.registry_auth)
                raise TemporaryError(str(error)) from error
            if not differences.is_name_taken(error.code, str(error)):
                raise TaskRejectedError(str(error)) from error
            if await self._find() is None:
                # An earlier request for it, or a removal, is not finished yet.
                raise TemporaryError(str(error)) from error
            raise TaskPreparedError(f"container {self._name!r} exists already") from error

    async def _make(self, task: Task, request: dict[str, Any]) -> None:
        def write_files() -> list[dict[str, Any]]:
            _require_sources(task)
            written = self._parts.memory.write(self._task, self._dependencies, self._parts.node)
            for _, file in written:
                if self._engine.host.rootless and (file.uid or file.gid):
                    raise TaskRejectedError(f"file {file.target!r}: a rootless engine can give it no owner but root")
            return [spec.file_mount(str(path), file.target, self._engine.host) for path, file in written]

        request["mounts"] += await self._engine.run(write_files)
        for volume in spec.volume_requests(task):
            await self._make_volume(volume)
        profile = spec.custom_seccomp(task)
        if profile is None:
            await self._create(request)
            return
        # The engine takes a profile as a file, and reads it when the container is made.
        with tempfile.NamedTemporaryFile("w", prefix="seccomp-", suffix=".json") as file:
            file.write(profile)
            file.flush()
            await self._create({**request, "seccomp_profile_path": file.name})

    async def _create(self, request: dict[str, Any]) -> None:
        made = await self._engine.call("POST", "/containers/create", body=request)
        self._remember(made["Id"])
        self._is_fresh = True

    async def _make_volume(self, request: dict[str, Any]) -> None:
        """A volume that is there already stays as it is, as on Docker."""
        try:
            await self._engine.call("POST", "/volumes/create", body=request)
        except EngineError as error:
            try:
                await self._engine.call("GET", f"/volumes/{quote(request['Name'], safe='')}/json")
            except EngineError:
                raise TaskRejectedError(f"volume {request['Name']!r}: {error}") from error

    async def start(self) -> None:
        await self._settle()
        found = None if self._is_fresh else await self._inspect()
        if found is None or differences.status(found) is Status.CREATED:
            self._is_fresh = False
            try:
                await self._uninterrupted(self._engine.call("POST", f"/containers/{self._id}/start"))
            except EngineError as error:
                raise TaskRejectedError(str(error)) from error
            found = await self._inspect()
        elif not (differences.status(found) is Status.RUNNING and differences.health(found) == "starting"):
            raise TaskStartedError(f"container {self._name!r} was started before")
        if self._health_checks(found) is not None:
            await self._watch(until_healthy=True)

    async def wait(self) -> None:
        await self._watch(until_healthy=False)

    async def _watch(self, *, until_healthy: bool) -> None:
        """Return when the container ended well or, if asked for, is healthy; run its health checks meanwhile."""
        with self._news() as watcher:
            while True:
                try:
                    found = await self._inspect()
                except TemporaryError:
                    if until_healthy:
                        raise
                    # The engine is away. What runs may well go on; the stream wakes us when it answers again.
                    await watcher.wait(RECHECK_SECONDS)
                    continue
                if differences.status(found) is Status.ENDED:
                    if code := int(found["State"]["ExitCode"]):
                        raise ExitError(code, differences.cause_of_death(found, is_ours=self._has_killed))
                    return
                checks, health = self._health_checks(found), differences.health(found)
                if checks is not None:
                    checks.knows(health)
                    if health == "unhealthy" or checks.gave_up:
                        await self.shutdown()
                        raise ExitError(1, "unhealthy container")
                if until_healthy and (checks is None or health == "healthy"):
                    return
                await self._next_news(watcher, checks)

    async def _next_news(self, watcher: Watcher, checks: Checks | None) -> None:
        """Return when there is something to look at: news, a health check that has run, or the time."""
        if checks is None or checks.wait_seconds >= RECHECK_SECONDS:
            await watcher.wait(RECHECK_SECONDS)
        elif not await watcher.wait(checks.wait_seconds):
            checking = asyncio.ensure_future(checks.run(self._id))
            news = asyncio.ensure_future(watcher.wait(None))
            both: tuple[asyncio.Future[Any], ...] = (checking, news)
            try:
                # A container that ends during its check is not waited for.
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.wait(both)
            for each in both:
                if not each.cancelled():
                    each.result()

    @contextlib.contextmanager
    def _news(self) -> Iterator[Watcher]:
        """Hear of the container, until this object is closed."""
        with self._events.watch(self._name) as watcher:
            self._watchers.add(watcher)
            if self._is_closed:
                watcher.close()
            try:
                yield watcher
            finally:
                self._watchers.discard(watcher)

    def _health_checks(self, found: Inspected) -> Checks | None:
        if self._checks is None and (check := HealthCheck.found(found)) is not None:
            self._checks = Checks(self._engine, check, self._parts.checks)
        return self._checks

    async def shutdown(self) -> None:
        await self._settle()
        signal = self._task.spec.container.stop_signal or await self._stop_signal()
        if not await self._signal(signal):
            return
        if not await self._wait_stopped(containers.stop_grace(self._task)):
            await self.terminate()

    async def terminate(self) -> None:
        await self._settle()
        self._has_killed = True
        if await self._signal("SIGKILL") and not await self._wait_stopped(KILL_SECONDS):
            raise TemporaryError(f"container {self._name!r} does not end after SIGKILL")

    async def remove(self) -> None:
        await self._settle()
        found = await self._find()
        if found is not None:
            path = f"/containers/{found['Id']}"
            try:
                reports = await self._engine.call("DELETE", path, params=differences.REMOVE_NOW)
            except EngineError as error:
                # 404: gone. 409: another removal is under way.
                if error.code not in (404, 409):
                    # Such as a file system that is still busy: what was made must not stay for ever.
                    raise TemporaryError(str(error)) from error
            else:
                if problem := differences.removal_error(reports):
                    raise TemporaryError(problem)
        for name in spec.own_volumes(self._task).values():
            try:
                await self._engine.call("DELETE", f"/volumes/{name}")
            except EngineError as error:
                if error.code != 404:
                    raise TemporaryError(str(error)) from error
        await self._engine.run(lambda: self._parts.memory.remove(self._task.id))

    async def aclose(self) -> None:
        self._is_closed = True
        if self._under_way is not None:
            self._under_way.cancel()
        for watcher in self._watchers:
            watcher.close()
        for answer in self._answers:
            answer.abort()

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

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        return read_logs(self._engine, self._id, options, self._answers)

    async def exec(self, options: ExecOptions) -> ExecSession:
        """Run a command in the container."""
        return await start_command(self._engine.docker_api, self._id, options)

    async def usage(self) -> TaskUsage:
        """What the container uses."""
        return await container_usage(self._engine.docker_api, self._id)

    # Asking the engine

    @property
    def _id(self) -> str:
        return self.handle.decode() if self.handle else quote(self._name, safe="")

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
            return differences.stop_signal(self._seen or await self._inspect())
        return "SIGTERM"

    async def _signal(self, signal: str) -> bool:
        """Send a signal; False where there is nothing left to send it to."""
        try:
            await self._engine.call("POST", f"/containers/{self._id}/kill", params={"signal": signal})
        except EngineError as error:
            if differences.is_not_running(error.code, str(error)):
                return False
            raise
        return True

    async def _wait_stopped(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with self._news() as watcher:
            while True:
                try:
                    if differences.status(await self._inspect()) is not Status.RUNNING:
                        return True
                except ContainerGoneError:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                await watcher.wait(left)


def _require_sources(task: Task) -> None:
    """What bind mounts name must be there; the engine would say so only when the container starts."""
    for mount in task.spec.container.mounts:
        if mount.type != Mount.BIND or os.path.lexists(mount.source):
            continue
        if not mount.bind_options.createmountpoint:
            raise TaskRejectedError(f"container.mounts: bind source path does not exist: {mount.source}")
        try:
            Path(mount.source).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TaskRejectedError(f"container.mounts: can't make {mount.source!r}: {error.strerror}") from error


def _take_note(request: asyncio.Task[Any]) -> None:
    """The error was for whoever waited; nobody may have."""
    if not request.cancelled():
        request.exception()
