"""One task as one container, on whichever engine.

Every wait is for news of the container; the engine is then asked how things are.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import quote

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import ContainerStatus, PortStatus
from swarmcore.plugin import containers
from swarmcore.plugin.container_events import ContainerEvents, Watcher
from swarmcore.plugin.containers import Status
from swarmcore.plugin.engine_calls import EngineCalls, EngineError
from swarmcore.plugin.engine_exec import container_usage, start_command
from swarmcore.plugin.executor import (
    Controller,
    ExecOptions,
    ExecSession,
    ExitError,
    TaskRejectedError,
    TaskStartedError,
    TaskUsage,
    TemporaryError,
)
from swarmcore.plugin.task_files import MemoryFolder

RECHECK_SECONDS: Final = 30.0
"""Level-triggered: even without news, a running container is looked at this often."""
KILL_SECONDS: Final = 10.0

Inspected = dict[str, Any]
T = TypeVar("T")


class ContainerGoneError(TaskRejectedError):
    """The container was removed behind our back."""


class ContainerController(Controller):
    """Drives the container of one task. What is made, and how it is removed, the engine's subclass says."""

    def __init__(self, engine: EngineCalls[Any], events: ContainerEvents, memory: MemoryFolder, task: Task) -> None:
        self._calls = engine
        self._events = events
        self._memory = memory
        self._task = task
        self._name = containers.container_name(task)
        self._seen: Inspected | None = None
        self._seen_at = -1
        """How much news there had been when that was asked for."""
        self._is_fresh = False
        """Made by this object and never started: what the engine would say of it is known."""
        self._is_killed = False
        """By us."""
        self._under_way: asyncio.Task[Any] | None = None
        """What makes files or the container, or starts it: it is carried out, waited for or not."""
        self._watchers: set[Watcher] = set()
        self._is_closed = False

    # What differs between engines

    @abstractmethod
    async def _delete(self, container_id: str) -> None:
        """Remove a container, whatever it does. Nothing where it is gone; raises TemporaryError where it stays."""

    async def _delete_rest(self) -> None:
        """Remove what was made for the container besides."""

    @abstractmethod
    def _end_reading(self) -> None:
        """End what is being read of its output."""

    def _cause(self, found: Inspected) -> str:
        """Why a container ended that did not end well, as far as the engine knows."""
        return "out of memory" if found["State"].get("OOMKilled") else str(found["State"].get("Error") or "")

    def _refusal(self, error: EngineError) -> str:
        """Why the engine does not make or start the container."""
        return str(error)

    def _is_not_running(self, error: EngineError) -> bool:
        """Whether a signal found nothing to go to."""
        return error.code in (404, 409)

    def _is_checked(self, found: Inspected) -> bool:
        """Whether RUNNING has to wait until the container is healthy."""
        return containers.has_healthcheck(found)

    def _is_unhealthy(self, found: Inspected) -> bool:
        return containers.health(found) == "unhealthy"

    async def _next_news(self, watcher: Watcher) -> None:
        """Return when there is something to look at."""
        await watcher.wait(RECHECK_SECONDS)

    # Life

    async def update(self, task: Task) -> None:
        self._task = task

    def _made(self, container_id: str) -> None:
        """To be called once the container is there."""
        self.handle = container_id.encode()
        self._is_fresh = True

    async def start(self) -> None:
        await self._settle()
        found = None if self._is_fresh else await self._inspect()
        if found is None or containers.status(found) is Status.CREATED:
            self._is_fresh = False
            try:
                await self._uninterrupted(self._calls.call("POST", f"/containers/{self._id}/start"))
            except EngineError as error:
                raise TaskRejectedError(self._refusal(error)) from error
            found = await self._inspect()
        elif not (containers.status(found) is Status.RUNNING and containers.health(found) == "starting"):
            raise TaskStartedError(f"container {self._name!r} was started before")
        if self._is_checked(found):
            await self._watch(until_healthy=True)

    async def wait(self) -> None:
        await self._watch(until_healthy=False)

    async def _watch(self, *, until_healthy: bool) -> None:
        """Return when the container ended well or, if asked for, is healthy."""
        with self._news() as watcher:
            # What was seen last still holds where nothing has happened since.
            found = self._seen if self._seen_at == self._events.heard else None
            while True:
                try:
                    found = found or await self._inspect()
                except TemporaryError:
                    if until_healthy:
                        raise
                    # The engine is away. What runs may well go on; the stream wakes us when it answers again.
                    await watcher.wait(RECHECK_SECONDS)
                    continue
                if containers.status(found) is Status.ENDED:
                    self._raise_if_failed(found)
                    return
                if self._is_unhealthy(found):
                    await self.shutdown()
                    raise ExitError(1, "unhealthy container")
                if until_healthy and (not self._is_checked(found) or containers.health(found) == "healthy"):
                    return
                await self._next_news(watcher)
                found = None

    def _raise_if_failed(self, found: Inspected) -> None:
        code = int(found["State"]["ExitCode"])
        # A dead one is one whose removal failed, whatever its code.
        if code or found["State"]["Status"] == "dead":
            raise ExitError(code, self._cause(found))

    async def shutdown(self) -> None:
        await self._settle()
        signal = self._task.spec.container.stop_signal or await self._stop_signal()
        if not await self._signal(signal):
            return
        if not await self._wait_stopped(containers.stop_grace(self._task)):
            await self.terminate()

    async def terminate(self) -> None:
        await self._settle()
        self._is_killed = True
        if await self._signal("SIGKILL") and not await self._wait_stopped(KILL_SECONDS):
            raise TemporaryError(f"container {self._name!r} does not end after SIGKILL")

    async def remove(self) -> None:
        await self._settle()
        found = await self._find()
        if found is not None:
            await self._delete(found["Id"])
        await self._delete_rest()
        await self._calls.run(lambda: self._memory.remove(self._task.id))

    async def aclose(self) -> None:
        self._is_closed = True
        if self._under_way is not None:
            self._under_way.cancel()
        for watcher in self._watchers:
            watcher.close()
        self._end_reading()

    async def exec(self, options: ExecOptions) -> ExecSession:
        """Run a command in the container."""
        return await start_command(self._calls.api, self._id, options, reword=self._reword)

    @staticmethod
    def _reword(said: bytes, before: bytes) -> bytes:
        """Better words for what an engine says on its own account in a command's stderr; empty leaves it out."""
        return said

    async def usage(self) -> TaskUsage:
        """What the container uses."""
        return await container_usage(self._calls.api, self._id)

    # What the core shows

    async def container_status(self) -> ContainerStatus | None:
        if self._seen is None:
            return ContainerStatus(container_id=self._id) if self.handle else None
        return containers.container_status(self._seen)

    async def port_status(self) -> PortStatus | None:
        return containers.port_status(self._task, self._seen or {})

    # Asking the engine

    async def attach(self) -> bool:
        """Find the container again after a restart; False where nothing is left of it."""
        return await self._find() is not None

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

    async def _uninterrupted(self, request: Coroutine[Any, Any, T]) -> T:
        """Await what goes on when the caller is cancelled; `_settle` waits for its end."""
        self._under_way = asyncio.create_task(request, name=f"container {self._name}")
        self._under_way.add_done_callback(_take_note)
        return await asyncio.shield(self._under_way)

    async def _settle(self) -> None:
        """Return when nothing is under way: what is asked of the engine next must find how things are."""
        if self._under_way is not None and not self._under_way.done():
            await asyncio.wait([self._under_way])

    @property
    def _id(self) -> str:
        return self.handle.decode() if self.handle else quote(self._name, safe="")

    async def _inspect(self) -> Inspected:
        found = await self._find()
        if found is None:
            raise ContainerGoneError("container destroyed")
        return found

    async def _find(self) -> Inspected | None:
        """The container of this task, by id or by name; None where there is none."""
        heard = self._events.heard
        try:
            found: Inspected = await self._calls.call("GET", f"/containers/{self._id}/json")
        except EngineError as error:
            if error.code == 404:
                return None
            # Only that it does not know right now: an engine that ends or starts says so too.
            raise TemporaryError(str(error)) from error
        owner = (found["Config"].get("Labels") or {}).get(containers.LABEL_TASK_ID)
        if owner != self._task.id:
            raise TaskRejectedError(f"a container named {self._name!r} exists and belongs to something else")
        self._seen, self._seen_at = found, heard
        self.handle = str(found["Id"]).encode()
        return found

    async def _stop_signal(self) -> str:
        with contextlib.suppress(ContainerGoneError):
            return containers.stop_signal(self._seen or await self._inspect())
        return "SIGTERM"

    async def _signal(self, signal: str) -> bool:
        """Send a signal; False where there is nothing left to send it to."""
        try:
            await self._calls.call("POST", f"/containers/{self._id}/kill", params={"signal": signal})
        except EngineError as error:
            if self._is_not_running(error):
                return False
            raise
        return True

    async def _wait_stopped(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with self._news() as watcher:
            while True:
                try:
                    if containers.status(await self._inspect()) is not Status.RUNNING:
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
