"""The one thread that waits for the disk, so that the loop never does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

R = TypeVar("R")

_CLOSE_SECONDS = 10.0


class Disk:
    """Runs blocking functions one after another in a thread of its own; results come back to the loop.

    Leaner than an executor: a write waits for one `fdatasync`, and every hop counts.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], R]) -> asyncio.Future[R]:
        """Start `call` after everything submitted before. It runs to its end even when nobody waits any more."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._calls.put((call, future))
        return future

    async def close(self) -> None:
        """End the thread after what it has to do; gives up on a disk that doesn't answer."""
        done = self.submit(lambda: None)
        self._calls.put(None)
        await asyncio.wait([done], timeout=_CLOSE_SECONDS)
        if done.done():
            self._thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - handed to the one who waits for it
                self._answer(future, None, error)
            else:
                self._answer(future, result, None)
            del item, call, future

    def _answer(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(_settle, future, result, error)
        except RuntimeError:
            pass  # the loop is closed: nobody waits


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


async def in_thread(call: Callable[[], R], *, unwanted: Callable[[R], None]) -> R:
    """Run `call` once in some thread. Where the caller is cancelled meanwhile, `unwanted` gets what comes of it."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:

        def give_away(done: asyncio.Future[R]) -> None:
            if not done.cancelled() and done.exception() is None:
                unwanted(done.result())

        running.add_done_callback(give_away)
        raise
