"""The health of a process: a command beside it that succeeds or fails, and what follows from that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from swarmcore.api.process_pb2 import ProcessHealth
from swarmcore.plugin.executor import ExecOptions, ExecSession, ExecutorError, TaskRejectedError

DEFAULT_SECONDS: Final = 30.0
MIN_INTERVAL_SECONDS: Final = 0.1
MAX_SECONDS: Final = 24 * 3600.0
DEFAULT_RETRIES: Final = 3

Run = Callable[[ExecOptions], Awaitable[ExecSession]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What is asked, how often, and how many failures are too many."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    retries: int
    start_period: float


def parse(health: ProcessHealth) -> Check | None:
    """The check of a task; None where nobody asks. Raises TaskRejectedError with the name of a field that is wrong."""
    if not health.command:
        return None
    if not health.command[0] or any("\0" in word for word in health.command):
        raise TaskRejectedError("process.health.command is no command")
    return Check(
        command=tuple(health.command),
        interval=_seconds("interval_seconds", health, MIN_INTERVAL_SECONDS),
        timeout=_seconds("timeout_seconds", health, MIN_INTERVAL_SECONDS),
        retries=health.retries or DEFAULT_RETRIES,
        start_period=_seconds("start_period_seconds", health, 0.0),
    )


def _seconds(name: str, health: ProcessHealth, least: float) -> float:
    value = float(getattr(health, name))
    if name != "start_period_seconds" and not health.HasField(name):  # type: ignore[arg-type]
        return DEFAULT_SECONDS
    if not least <= value <= MAX_SECONDS:  # which no NaN passes
        raise TaskRejectedError(f"process.health.{name} {value:g} is not between {least:g} and {MAX_SECONDS:g}")
    return value


class Health:
    """Asks again and again how one process is. The first answer counts when it has come."""

    def __init__(self, check: Check, run: Run) -> None:
        self._check = check
        self._run = run
        self._failures = 0
        self._had_success = False
        self._began = time.monotonic()

    async def wait_healthy(self) -> bool:
        """Return at the first success with True, or with False once there were too many failures."""
        while not await self._next():
            if self._failures >= self._check.retries:
                return False
        return True

    async def wait_unhealthy(self) -> None:
        """Return once there were too many failures one after the other. The process is taken to be healthy before."""
        self._had_success = True
        while self._failures < self._check.retries:
            await self._next()

    async def _next(self) -> bool:
        await asyncio.sleep(self._check.interval)
        is_grace = not self._had_success and time.monotonic() - self._began < self._check.start_period
        is_healthy = await self._ask()
        if is_healthy:
            self._failures, self._had_success = 0, True
        elif not is_grace:
            self._failures += 1
        return is_healthy

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(self._check.timeout):
                session = await self._run(ExecOptions(command=self._check.command))
                try:
                    # What it says is nobody's business, but it must not wait for a reader.
                    async for _ in session.output():
                        pass
                    return await session.wait() == 0
                finally:
                    await session.aclose()
        except (TimeoutError, ExecutorError):
            return False
