"""Health checks, driven from here: Podman's own need systemd's timers, which not every host and user has.

The engine runs a check when it is asked to, and counts; this decides when. While nobody drives them (the agent is
away) a container keeps the health that it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.containers import nanoseconds
from swarmcore_podman_executor.differences import NO_TIMER
from swarmcore_podman_executor.engine import Engine

SECOND: Final = 1_000_000_000
INTERVAL: Final = 30 * SECOND
TIMEOUT: Final = 30 * SECOND
RETRIES: Final = 3
START_INTERVAL: Final = 5 * SECOND
CHECKS_AT_ONCE: Final = 32
LABEL: Final = "swarmcore.podman.health"
"""On the container: interval, start interval, start period, timeout, in nanoseconds, and retries. An agent that starts
again knows them from there, also where they were the image's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """What is run, and when. Durations in nanoseconds."""

    test: tuple[str, ...]
    interval: int
    timeout: int
    retries: int
    start_period: int
    start_interval: int

    @classmethod
    def of(cls, task: Task, image: Mapping[str, Any]) -> HealthCheck | None:
        """The task's own, completed by the image's, or the image's; None where there is none, or it is switched off."""
        spec = task.spec.container
        own = spec.healthcheck if spec.HasField("healthcheck") else None
        test = tuple(own.test) if own is not None and own.test else tuple(image.get("Test") or ())
        if not test or test == ("NONE",):
            return None

        def pick(name: str, key: str, default: int) -> int:
            value: Duration = getattr(own, name) if own is not None else Duration()
            return nanoseconds(value) or int(image.get(key) or 0) or default

        return cls(
            test=test,
            interval=pick("interval", "Interval", INTERVAL),
            timeout=pick("timeout", "Timeout", TIMEOUT),
            retries=(own.retries if own is not None else 0) or int(image.get("Retries") or 0) or RETRIES,
            start_period=pick("start_period", "StartPeriod", 0),
            start_interval=pick("start_interval", "StartInterval", START_INTERVAL),
        )

    def request(self) -> dict[str, Any]:
        """For the create request: without a timer."""
        return {
            "Test": list(self.test),
            "Interval": NO_TIMER,
            "Timeout": self.timeout,
            "Retries": self.retries,
            "StartPeriod": self.start_period,
        }

    def label(self) -> str:
        return f"{self.interval},{self.start_interval},{self.start_period},{self.timeout},{self.retries}"

    @classmethod
    def found(cls, inspected: Mapping[str, Any]) -> HealthCheck | None:
        """What a container was made with; None where it has no health check that is ours to drive."""
        text = ((inspected.get("Config") or {}).get("Labels") or {}).get(LABEL, "")
        numbers = [int(part) for part in text.split(",") if part.isdigit() and len(part) < 20]
        if len(numbers) != 5:
            return None
        interval, start_interval, start_period, timeout, retries = numbers
        return cls(
            test=(),
            interval=interval,
            timeout=timeout,
            retries=retries,
            start_period=start_period,
            start_interval=start_interval,
        )


NO_CHECK: Final = {"Test": ["NONE"]}
"""For the create request: none, even if the image has one."""


class Checks:
    """Runs the checks of one container, one after another."""

    def __init__(self, engine: Engine, check: HealthCheck, places: asyncio.Semaphore) -> None:
        """`places` bounds the checks that run at once on the engine."""
        self._engine = engine
        self._check = check
        self._places = places
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._due = 0.0
        self.is_healthy = False
        """Whether one has succeeded: then the start is over."""
        self._silent = 0
        self._plan()

    @property
    def wait_seconds(self) -> float:
        """How long until the next one is due."""
        return max(0.0, self._due - self._loop.time())

    @property
    def gave_up(self) -> bool:
        """Whether so many in a row did not end in time that the container is unhealthy; the engine counts no such."""
        return self._silent >= self._check.retries

    async def run(self, container_id: str) -> None:
        """Run one. The container's state has the outcome; an engine that is away is not its fault."""
        path = f"/containers/{container_id}/healthcheck"
        async with self._places:
            seconds = self._check.timeout / SECOND
            try:
                async with self._engine.stream(path, head_seconds=seconds + 1) as answer:
                    await answer.body()
                self._silent = 0
            except TimeoutError:
                if not self._is_starting:
                    self._silent += 1
            except OSError:
                pass
        self._plan()

    def knows(self, health: str) -> None:
        self.is_healthy = self.is_healthy or health == "healthy"

    @property
    def _is_starting(self) -> bool:
        return not self.is_healthy and self._loop.time() < self._began + self._check.start_period / SECOND

    def _plan(self) -> None:
        interval = min(self._check.start_interval, self._check.interval) if self._is_starting else self._check.interval
        self._due = self._loop.time() + interval / SECOND
