"""Writes that gather while the one before is under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from swarmcore.clock import Clock
from swarmcore.errors import DeadlineError, ResourceExhaustedError
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

V = TypeVar("V")

DEFAULT_LIMIT = 200_000
RETRY_SECONDS = 1.0

_log = logging.getLogger("swarmcore.dispatcher")


class WriteQueue(Generic[V]):
    """Values by key (the last one wins), written at once when idle, else everything that waits in one batch.

    One batch is under way at a time, so under load batches grow by themselves and nothing waits for a timer.
    """

    def __init__(
        self,
        what: str,
        write: Callable[[Transaction, tuple[str, V]], object],
        clock: Clock,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self._what = what
        self._write = write
        self._clock = clock
        self._limit = limit
        self._pending: dict[str, V] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pending)

    def check_room(self, count: int) -> None:
        """Raise ResourceExhaustedError when so many more do not fit."""
        if len(self._pending) + count > self._limit:
            raise ResourceExhaustedError(f"too many {self._what} wait to be written; report again in a moment")

    def waiting(self, key: str) -> V | None:
        """What waits under this key."""
        return self._pending.get(key)

    def put(self, key: str, value: V) -> None:
        """Queue one write. The caller has checked the room, or the keys are bounded by themselves."""
        self._pending[key] = value
        self._wake.set()

    async def run(self, store: LeaderStore) -> None:
        """Write, until cancelled. Raises NotLeaderError when the term is over."""
        while True:
            while not self._pending:
                self._wake.clear()
                await self._wake.wait()
            batch, self._pending = self._pending, {}
            try:
                results = await store.batch(batch.items(), self._write)
            except (ResourceExhaustedError, DeadlineError) as error:
                await self._retry(batch, error)
            else:
                for key, failure in zip(batch, results, strict=True):
                    if failure is not None:
                        _log.warning("%s of %r not written: %s", self._what, key, failure)

    async def _retry(self, batch: dict[str, V], error: Exception) -> None:
        """What came meanwhile is newer and stays."""
        _log.warning("%d %s wait for the store: %s", len(batch), self._what, error)
        self._pending = {**batch, **self._pending}
        await self._clock.sleep_until(self._clock.monotonic() + RETRY_SECONDS)
