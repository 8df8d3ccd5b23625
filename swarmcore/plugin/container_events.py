"""News of containers: one event stream for a whole engine wakes those who wait for one container.

Level-triggered: an event, or a stream that begins anew, only wakes the waiter, who then asks the engine how things are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

from swarmcore.plugin.engine_http import ask
from swarmcore.plugin.executor import TemporaryError

RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)
ANSWER_SECONDS: Final = 60.0
OVERLAP_SECONDS: Final = 2
"""So much of the past is asked for again: engines begin to look for news some time after they answer."""
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
        """Nobody tells any news from here on: who waits is told that."""
        self._is_closed = True
        self._changed.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Return at the next news, or after `seconds`; whether there was any. Raises TemporaryError once closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        if self._is_closed:
            raise TemporaryError("the executor or its controller was closed")
        self._changed.clear()
        return True


class ContainerEvents:
    """The stream of one engine, the task that reads it, and the watchers by container name."""

    def __init__(self, engine: str, address: str, path: str, filters: Mapping[str, list[str]]) -> None:
        """Begin to listen; needs a running loop.

        `engine`: its name, for the log. `address`: `unix:///path` or `tcp://host:port`. `path`: of the engine's events,
        with the API's version. `filters`: as the engine takes them.
        """
        self._engine = f"{engine} engine at {address}"
        self._address = address
        self._path = path
        self._filters = json.dumps(filters)
        self._log = logging.getLogger(f"swarmcore.{engine.lower()}")
        self._watchers: dict[str, list[Watcher]] = {}
        self._is_closed = False
        self.heard = 0
        """How often there was news of any container. What an engine said still holds while this number is what it was
        when the engine was asked."""
        self._task = asyncio.create_task(self._run(), name=f"{engine} events")

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

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._events()) as events:
                    async for event in events:
                        if failures:
                            self._log.info("the %s answers again", self._engine)
                            failures = 0
                        self._take(event)
            except (OSError, ValueError):
                pass
            if failures == 0:
                self._log.warning("the %s ended the event stream; trying again", self._engine)
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    def _take(self, event: bytes) -> None:
        """Tell those whom it concerns; an empty one concerns all."""
        self.heard += 1
        names = [_name_in(json.loads(event))] if event else list(self._watchers)
        for name in names:
            for watcher in self._watchers.get(name, ()):
                watcher.wake()

    async def _events(self) -> AsyncGenerator[bytes, None]:
        """An empty one at the beginning, when the engine listens, and then what it tells, one JSON object each."""
        params = {"since": str(int(time.time()) - OVERLAP_SECONDS), "filters": self._filters, "stream": "true"}
        asking = ask(self._address, "GET", self._path, params=params, head_seconds=ANSWER_SECONDS)
        async with asking as answer, contextlib.aclosing(answer.chunks()) as chunks:
            if answer.status != 200:
                raise OSError(f"status {answer.status}")
            yield b""
            rest = b""
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
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


def _name_in(event: Any) -> str:
    """The container that an event is about; empty where it is about none."""
    actor = event.get("Actor") if isinstance(event, dict) else None
    attributes = actor.get("Attributes") if isinstance(actor, dict) else None
    return str(attributes.get("name") or "") if isinstance(attributes, dict) else ""
