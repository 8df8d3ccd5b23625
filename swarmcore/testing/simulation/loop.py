"""An event loop whose time is a number: it never waits, and the same calls come in the same order each time."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events
from collections.abc import Callable
from typing import Any


class StuckError(AssertionError):
    """Everything waits, and nothing will ever happen."""


class SimulatedLoop(base_events.BaseEventLoop):
    """Runs the callbacks that are ready, then moves its time to the next timer.

    What real code would hand to a thread runs at once, in its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: Any = self._scheduled  # type: ignore[attr-defined]
        while not ready:
            if not timers:
                if self._stopping:  # type: ignore[attr-defined]
                    return
                raise StuckError("everything waits for something that can't come")
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            else:
                self._now = max(self._now, timer._when)
                timer._run()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:  # noqa: BLE001 - handed to the one who waits for it
            future.set_exception(error)
        return future

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""


def new_loop() -> SimulatedLoop:
    return SimulatedLoop()
