"""One run of the program on one machine: its clock, its disk thread, and what is held back while it stands still."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any, TypeVar

from swarmcore.testing.simulation.files import Files, PowerCut

R = TypeVar("R")

EPOCH = 1_700_000_000.0


class Process:
    """What the clock, the disks and the network of a member go through: a pause stops all, the end silences them."""

    def __init__(self, files: Files, chance: Random, power_cut: Callable[[Process], None]) -> None:
        self.files = files
        self.chance = chance
        self.power_cut = power_cut
        self.is_alive = True
        self.is_paused = False
        self.disk_seconds = 0.001
        """How long a call of the disk takes, at most."""
        self.is_disk_hung = False
        """No call of a disk ends. Change it with `hang_disks` and `free_disks`."""
        self.disks: list[SimulatedDisk] = []
        self._held: list[Callable[[], None]] = []

    def soon(self, call: Callable[[], None]) -> None:
        """Let the process notice something: now, or when it goes on."""
        if self.is_paused:
            self._held.append(call)
        elif self.is_alive:
            call()

    def resume(self) -> None:
        self.is_paused = False
        held, self._held = self._held, []
        for call in held:
            self.soon(call)

    def hang_disks(self) -> None:
        """From now on no call of a disk comes back."""
        self.is_disk_hung = True

    def free_disks(self) -> None:
        """What hung is done now."""
        self.is_disk_hung = False
        for disk in self.disks:
            disk.go_on()

    def end(self) -> None:
        """It is gone. What its disks were at may be done or not."""
        self.is_alive = False
        self._held.clear()
        for disk in self.disks:
            disk.end()


PROCESS: ContextVar[Process] = ContextVar("process")
"""The process that is being started: `Disk` is made by code that does not know where it runs."""


class MemberClock:
    """Satisfies `swarmcore.clock.Clock`: the loop's time at a rate of its own, and a wall clock that may be wrong."""

    def __init__(self, process: Process, loop: asyncio.AbstractEventLoop) -> None:
        self._process = process
        self._loop = loop
        self._origin = self._base = loop.time()
        self._rate = 1.0
        self.skew = 0.0

    def now(self) -> float:
        return EPOCH + self._loop.time() + self.skew

    def monotonic(self) -> float:
        return self._base + (self._loop.time() - self._origin) * self._rate

    def drift(self, rate: float) -> None:
        """From now on, run `rate` times as fast as the others' clocks."""
        self._base, self._origin, self._rate = self.monotonic(), self._loop.time(), rate

    async def sleep_until(self, deadline: float) -> None:
        if deadline <= self.monotonic():
            await asyncio.sleep(0)
            return
        timer: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not timer.done():
                timer.set_result(None)

        at = self._origin + (deadline - self._base) / self._rate
        handle = self._loop.call_at(at, self._process.soon, wake)
        try:
            await timer
        finally:
            handle.cancel()


class SimulatedDisk:
    """In the place of `replication.disk.Disk`: the same calls in the same order, without a thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = PROCESS.get()
        self._process.disks.append(self)
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._is_hung = False

    def submit(self, call: Callable[[], R]) -> asyncio.Future[R]:
        future: asyncio.Future[R] = self._loop.create_future()
        self._calls.append((call, future))
        if len(self._calls) == 1:
            self._begin()
        return future

    def _begin(self) -> None:
        process = self._process
        seconds = process.disk_seconds * process.chance.random()
        self._loop.call_later(seconds, process.soon, self._finish)

    def go_on(self) -> None:
        if self._is_hung:
            self._is_hung = False
            self._begin()

    def _finish(self) -> None:
        if self._process.is_disk_hung:
            self._is_hung = True
            return
        call, future = self._calls[0]
        try:
            result = call()
        except PowerCut:
            self._process.power_cut(self._process)
            return
        except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
        self._calls.popleft()
        if self._calls:
            self._begin()

    def end(self) -> None:
        """The process is gone; the call that was under way may have reached the disk."""
        calls, self._calls = self._calls, deque()
        if calls and self._process.chance.random() < 0.5:
            try:
                calls[0][0]()
            except (PowerCut, Exception):  # noqa: BLE001 - nobody is left to be told
                pass

    async def close(self) -> None:
        """Part of the real one; a simulated process is never closed, it ends."""
