"""One event stream for the whole engine: it tells who waits for a container that something happened to it.

Level-triggered: an event, or the loss of the stream, only wakes the waiter, which then asks the engine how things are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

from swarmcore.plugin.executor import TemporaryError
from swarmcore_podman_executor.differences import EVENT_FILTERS, event_name
from swarmcore_podman_executor.engine import Engine

log = logging.getLogger("swarmcore.podman")

RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)
OVERLAP_SECONDS: Final = 2
"""So much of the past is asked for again: the service looks for news some time after it answers."""
MAX_EVENT: Final = 1024 * 1024
"""Bytes of one event; labels make most of them."""


class Watcher:
    """Someone who waits for news of one container."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._is_closed = False

    def wake(self) -> None:
        self._changed.set()

    def close(self) -> None:
        """Nobody will tell any news: who waits is told that."""
        self._is_closed = True
        self._changed.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Return at the next news, or after `seconds`; whether there was any. Raises TemporaryError when closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        if self._is_closed:
            raise TemporaryError("the executor was closed")
        self._changed.clear()
        return True


class Events:
    """The stream, the task that reads it, and the watchers by container name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watchers: dict[str, list[Watcher]] = {}
        self._is_closed = False
        self._task = asyncio.create_task(self._run(), name="podman events")

    @contextlib.contextmanager
    def watch(self, container_name: str) -> Iterator[Watcher]:
        """Hear of one container while inside."""
        watcher = Watcher()
        if self._is_closed:
            watcher.close()
        self._watchers.setdefault(container_name, []).append(watcher)
        try:
            yield watcher
        finally:
            watchers = self._watchers[container_name]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[container_name]

    def _dispatch(self, name: str) -> None:
        for watcher in self._watchers.get(name, ()):
            watcher.wake()

    def _resync(self) -> None:
        for name in self._watchers:
            self._dispatch(name)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async for line in self._lines():
                    if failures:
                        log.info("the Podman engine at %s answers again", self._engine.address)
                        failures = 0
                    self._take(line)
            except (OSError, ValueError):
                pass
            if failures == 0:
                log.warning("the Podman engine at %s ended the event stream; trying again", self._engine.address)
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    def _take(self, line: bytes) -> None:
        if not line:
            self._resync()
            return
        told = json.loads(line)
        if isinstance(told, dict) and (name := event_name(told)):
            self._dispatch(name)

    async def _lines(self) -> AsyncIterator[bytes]:
        """An empty line at the beginning, when the service listens, and then the events."""
        params = {
            "stream": "true",
            "since": str(int(time.time()) - OVERLAP_SECONDS),
            "filters": json.dumps(EVENT_FILTERS),
        }
        async with self._engine.stream("/events", params) as answer:
            if answer.status != 200:
                raise OSError(await answer.message())
            yield b""
            rest = b""
            async for chunk in answer.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line
                if len(rest) > MAX_EVENT:
                    raise OSError("an event without an end")

    async def aclose(self) -> None:
        """End the stream, and every wait for news."""
        self._is_closed = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.close()
        self._task.cancel()
        await asyncio.wait([self._task])
