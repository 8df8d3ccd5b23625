"""One event stream for the whole engine: it tells who waits for a container that something happened to it.

Level-triggered: an event, or the loss of the stream, only wakes the waiter, which then asks the engine how things are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import docker.errors
import requests

from swarmcore.plugin.executor import TemporaryError
from swarmcore_docker_executor.engine import Engine

log = logging.getLogger("swarmcore.docker")

FILTERS = {
    "type": ["container"],
    "event": ["die", "destroy", "health_status"],
    "label": ["com.docker.swarm.task"],
}
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)


class Watcher:
    """Someone who waits for news of one container."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._is_closed = False

    def wake(self) -> None:
        self._changed.set()

    def close(self) -> None:
        """Nobody tells any news from here on."""
        self._is_closed = True
        self._changed.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Return at the next news, or after `seconds`. Raises TemporaryError once it is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        if self._is_closed:
            raise TemporaryError("the executor or its controller was closed")
        self._changed.clear()


class Events:
    """The stream, its thread, and the watchers by container name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._watchers: dict[str, list[Watcher]] = {}
        self._stopping = threading.Event()
        self._stream: Any = None
        self._thread = threading.Thread(target=self._follow, name="docker-events", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watch(self, container_name: str) -> Iterator[Watcher]:
        """Hear of one container while inside."""
        watcher = Watcher()
        if self._stopping.is_set():
            watcher.close()
        self._watchers.setdefault(container_name, []).append(watcher)
        try:
            yield watcher
        finally:
            watchers = self._watchers[container_name]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[container_name]

    def _dispatch(self, names: list[str]) -> None:
        for name in names:
            for watcher in self._watchers.get(name, ()):
                watcher.wake()

    def _resync(self) -> None:
        self._dispatch(list(self._watchers))

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            client = self._engine.client(timeout=None)
            try:
                self._stream = client.events(decode=True, filters=FILTERS)
                if self._stopping.is_set():  # `aclose` came while there was no stream to close yet
                    self._stream.close()
                    return
                if failures:
                    log.info("the Docker engine at %s answers again", self._engine.address)
                failures = 0
                self._tell(self._resync)
                for event in self._stream:
                    name = event.get("Actor", {}).get("Attributes", {}).get("name")
                    if name:
                        self._tell(self._dispatch, [name])
            except (docker.errors.DockerException, requests.RequestException, OSError, ValueError):
                pass
            finally:
                client.close()
            if self._stopping.is_set():
                return
            if failures == 0:
                log.warning("the Docker engine at %s ended the event stream; trying again", self._engine.address)
            self._stopping.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    def _tell(self, function: Any, *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *args)

    async def aclose(self) -> None:
        """End the stream and its thread, within two seconds; those who wait get a TemporaryError."""
        self._stopping.set()
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.close()
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(docker.errors.DockerException, OSError, AttributeError):
                stream.close()
        await asyncio.to_thread(self._thread.join, 2.0)
