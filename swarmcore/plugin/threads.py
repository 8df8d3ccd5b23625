"""Threads that block in an event loop's place, and are in nobody's way when the process ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Threads:
    """At most `most` threads, each made when all the others are busy.

    They are daemons, which those of concurrent.futures are not: Python waits for these before it ends, and an engine
    that never answers would hold up the end of the agent for minutes.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._count_running = 0
        self._tell_ended: Callable[[], None] = _nothing
        """Both under the lock."""
        self._is_closed = False
        self.at_end: Callable[[], None] = _nothing
        """Each thread calls it when it ends, for what is its own."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on a thread. Cancelled before its turn, it is not run; cancelled later, its end is nobody's."""
        if self._is_closed:
            raise RuntimeError("the threads were closed")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, done, work))
        if not self._idle.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{self._count}", daemon=True)
            self._threads.append(thread)
            with self._lock:
                self._count_running += 1
            thread.start()
        return await done

    def close(self) -> None:
        """Take no more work; each thread ends after what it does now, and calls that still wait are cancelled."""
        self._is_closed = True
        for _ in range(self._count):
            self._jobs.put(None)

    async def wait_ended(self, seconds: float) -> None:
        """Return when every thread has ended, or after so many seconds. To be called once it is closed."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        threads = list(self._threads)
        with self._lock:
            self._tell_ended = lambda: _call(loop, ended.set)
            if self._count_running == 0:
                ended.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended.wait()
            for thread in threads:
                thread.join()

    def _serve(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                loop, done, work = job
                if self._is_closed:
                    _call(loop, done.cancel)
                elif not done.cancelled():
                    _finish(loop, done, work)
                self._idle.release()
        finally:
            self.at_end()
            with self._lock:
                self._count_running -= 1
                if self._count_running == 0:
                    self._tell_ended()


def _nothing() -> None:
    """What a thread does at its end where nobody says anything."""


def _finish(loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any], work: Callable[[], Any]) -> None:
    """Run one job and tell its loop."""
    setter: Callable[[Any], None]
    try:
        outcome, setter = work(), done.set_result
    except Exception as error:  # noqa: BLE001 - raised again where it is awaited
        outcome, setter = error, done.set_exception

    def tell() -> None:
        if not done.done():
            setter(outcome)

    _call(loop, tell)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function)
