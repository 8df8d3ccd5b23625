"""One task as one container of a Podman engine."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import Mount
from swarmcore.plugin import containers
from swarmcore.plugin.container_controller import RECHECK_SECONDS, ContainerController, Inspected
from swarmcore.plugin.container_events import ContainerEvents, Watcher
from swarmcore.plugin.engine_calls import EngineError
from swarmcore.plugin.engine_http import Answer
from swarmcore.plugin.executor import (
    Dependencies,
    LogLine,
    LogOptions,
    TaskPreparedError,
    TaskRejectedError,
    TaskUsage,
    TemporaryError,
)
from swarmcore.plugin.task_files import MemoryFolder
from swarmcore_podman_executor import differences, spec
from swarmcore_podman_executor.engine import Engine
from swarmcore_podman_executor.health import LABEL, NO_CHECK, Checks, HealthCheck
from swarmcore_podman_executor.images import Images
from swarmcore_podman_executor.logs import read_logs


class Parts:
    """What the controllers of one executor share."""

    def __init__(self, engine: Engine, events: ContainerEvents, images: Images, memory: MemoryFolder) -> None:
        self.engine = engine
        self.events = events
        self.images = images
        self.memory = memory
        self.checks = asyncio.Semaphore(32)
        """Places for health checks that run at once."""
        self.node: Node | None = None
        """This node as the managers see it, once they have said it: templates name it."""


class PodmanController(ContainerController):
    """Drives the container of one task."""

    def __init__(self, parts: Parts, task: Task, dependencies: Dependencies) -> None:
        super().__init__(parts.engine, parts.events, parts.memory, task)
        self._parts = parts
        self._engine = parts.engine
        self._dependencies = dependencies
        self._checks: Checks | None = None
        self._answers: set[Answer] = set()
        """Output that is being read."""

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
                raise TaskRejectedError(self._refusal(error)) from error
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
        self._made(made["Id"])

    async def _make_volume(self, request: dict[str, Any]) -> None:
        """A volume that is there already stays as it is, as on Docker."""
        try:
            await self._engine.call("POST", "/volumes/create", body=request)
        except EngineError as error:
            try:
                await self._engine.call("GET", f"/volumes/{quote(request['Name'], safe='')}/json")
            except EngineError:
                raise TaskRejectedError(f"volume {request['Name']!r}: {error}") from error

    @staticmethod
    def _reword(said: bytes, before: bytes) -> bytes:
        return differences.command_words(said, before)

    async def _next_news(self, watcher: Watcher) -> None:
        """Return when there is something to look at: news, a health check that has run, or the time."""
        checks = self._checks
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

    def _health_checks(self, found: Inspected) -> Checks | None:
        if self._checks is None and (check := HealthCheck.found(found)) is not None:
            self._checks = Checks(self._engine, check, self._parts.checks)
        return self._checks

    def _is_checked(self, found: Inspected) -> bool:
        return self._health_checks(found) is not None

    def _is_unhealthy(self, found: Inspected) -> bool:
        checks, health = self._health_checks(found), containers.health(found)
        if checks is None:
            return False
        checks.knows(health)
        return health == "unhealthy" or checks.gave_up

    async def _delete(self, container_id: str) -> None:
        try:
            reports = await self._engine.call("DELETE", f"/containers/{container_id}", params=differences.REMOVE_NOW)
        except EngineError as error:
            # 404: gone. 409: another removal is under way.
            if error.code not in (404, 409):
                # Such as a file system that is still busy: what was made must not stay for ever.
                raise TemporaryError(str(error)) from error
        else:
            if problem := differences.removal_error(reports):
                raise TemporaryError(problem)

    async def _delete_rest(self) -> None:
        for name in spec.own_volumes(self._task).values():
            try:
                await self._engine.call("DELETE", f"/volumes/{name}")
            except EngineError as error:
                if error.code != 404:
                    raise TemporaryError(str(error)) from error

    async def usage(self) -> TaskUsage:
        if not self._engine.host.may_use("memory"):
            # The engine would tell what the whole machine uses.
            raise TaskRejectedError("stats: the engine gives containers no cgroups of their own here")
        return await super().usage()

    def _refusal(self, error: EngineError) -> str:
        return differences.refusal(str(error), self._task.spec.container)

    def _cause(self, found: Inspected) -> str:
        return differences.cause_of_death(found, is_ours=self._is_killed)

    def _is_not_running(self, error: EngineError) -> bool:
        return differences.is_not_running(error.code, str(error))

    def _end_reading(self) -> None:
        for answer in self._answers:
            answer.abort()

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        return read_logs(self._engine, self._id, options, self._answers)


def _require_sources(task: Task) -> None:
    """What bind mounts name must be there; the engine would say so only when the container starts."""
    for mount in task.spec.container.mounts:
        if mount.type != Mount.BIND or _is_there(mount.source):
            continue
        if not mount.bind_options.createmountpoint:
            raise TaskRejectedError(f"container.mounts: bind source path does not exist: {mount.source}")
        try:
            Path(mount.source).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TaskRejectedError(f"container.mounts: can't make {mount.source!r}: {error.strerror}") from error


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TaskRejectedError(f"container.mounts: can't look at {path!r}: {reason}") from error
    return True
