"""A store for tests: agreement is immediate, everything else is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from swarmcore.store.store import Store


class ImmediateProposer:
    """Commits each proposal at once, in one term."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.term = 1
        self.entries: list[bytes] = []
        """Every proposed entry, in order: index is position + 1."""

    @property
    def next_index(self) -> int:
        return len(self.entries) + 1

    async def propose(self, data: bytes, token: object) -> None:
        self.entries.append(data)
        self._store.apply(len(self.entries), data, token)


@asynccontextmanager
async def running_store(clock: Callable[[], float] = lambda: 1_700_000_000.0) -> AsyncIterator[Store]:
    """A store whose writes are applied at once, with its writer running.

    Raises InternalError, at the next write or at the end, when an object of the store was changed in place.
    """
    store = Store(clock=clock, checked=True)
    store.connect(ImmediateProposer(store))
    writer = asyncio.create_task(store.run())
    try:
        yield store
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    store.check()
