"""The scheduler's one thread: takes an input, plans a round, hands the output back. Owned by one term."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

from swarmcore.scheduler.planner import Input, Output, Planner

log = logging.getLogger("swarmcore.scheduler")

SWITCH_SECONDS = 0.0005
"""How long the thread computes before the loop gets its turn."""
SLOW_SECONDS = 10.0
STOP_SECONDS = 5.0

_Request = tuple[Input, "asyncio.Future[Output]"]


class PlannerThread:
    """Runs a planner beside the loop. One input is under way at a time: nothing piles up between the two."""

    def __init__(self, planner: Planner) -> None:
        self._loop = asyncio.get_running_loop()
        self._planner = planner
        self._is_stopped = False
        planner.is_stopped = lambda: self._is_stopped
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        if sys.getswitchinterval() > SWITCH_SECONDS:
            sys.setswitchinterval(SWITCH_SECONDS)
        self._thread.start()

    async def ask(self, given: Input) -> Output:
        """One round. Raises what the planner raised; says so in the log when a filter takes very long."""
        answer: asyncio.Future[Output] = self._loop.create_future()
        self._requests.put((given, answer))
        while not answer.done():
            done, _ = await asyncio.wait({answer}, timeout=SLOW_SECONDS)
            if not done:
                log.warning("scheduling has not come back for %.0f s, it is in %s", SLOW_SECONDS, self._where())
        return answer.result()

    async def aclose(self) -> None:
        """End the thread and wait for it; one that a plugin keeps busy is named and left behind."""
        self._is_stopped = True
        self._requests.put(None)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            log.error("the scheduler's thread did not stop in %.0f s, it is in %s", STOP_SECONDS, self._where())
        else:
            self._thread.join()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            given, answer = request
            try:
                output = self._planner.round(given)
            except Exception as error:  # noqa: BLE001 - handed to the term, which ends with it and starts again
                self._call(self._refuse, answer, error)
            else:
                self._call(self._give, answer, output)
            # Nothing of the last round is kept alive while the next one is waited for.
            del request, given, answer
        self._call(self._ended.set)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            log.debug("the loop is closed")

    @staticmethod
    def _give(answer: asyncio.Future[Output], output: Output) -> None:
        if not answer.done():
            answer.set_result(output)

    @staticmethod
    def _refuse(answer: asyncio.Future[Output], error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "no frame"
