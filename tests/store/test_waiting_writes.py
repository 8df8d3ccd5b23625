"""While nothing is agreed, writes that wait are bounded, and those that were given up cost nothing."""

from __future__ import annotations

import asyncio

import pytest

from swarmcore.errors import UnavailableError
from swarmcore.store import store as store_module
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction

MOST = 50


class Hanging:
    """Satisfies `store.Proposer`: it leads, and nobody agrees."""

    term = 3
    next_index = 1

    async def propose(self, data: bytes, token: object) -> None:
        await asyncio.Event().wait()


def nothing(tx: Transaction) -> None:
    pass


async def give_up(writes: list[asyncio.Task[None]]) -> None:
    for write in writes:
        write.cancel()
    await asyncio.gather(*writes, return_exceptions=True)


async def waiting(store: Store, count: int) -> list[asyncio.Task[None]]:
    writes = [asyncio.create_task(store.update(nothing)) for _ in range(count)]
    await asyncio.sleep(0)
    return writes


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store_module, "MAX_WAITING_WRITES", MOST)
    return Store(Hanging())


async def test_no_more_writes_wait_than_may(store: Store) -> None:
    writes = await waiting(store, MOST)

    with pytest.raises(UnavailableError, match="50 writes wait already: ask again later"):
        await store.update(nothing)
    await give_up(writes)


async def test_writes_that_were_given_up_leave_nothing_behind(store: Store) -> None:
    for _ in range(20):
        await give_up(await waiting(store, MOST))

    assert len(store._jobs) <= MOST
