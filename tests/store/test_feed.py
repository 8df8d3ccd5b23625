"""Changes given to a component, a slice at a time."""

from __future__ import annotations

import asyncio

from swarmcore.api.objects_pb2 import Task
from swarmcore.store.changes import Change, Commit, Resync
from swarmcore.store.inbox import feed


def commit(version: int, *ids: str) -> Commit:
    return Commit(version, tuple(Change("task", None, Task(id=id)) for id in ids))


async def test_changes_come_in_order_and_the_loop_has_its_turn_after_each_slice() -> None:
    taken: list[str] = []
    turns: list[int] = []

    async def watch() -> None:
        for _ in range(2):
            turns.append(len(taken))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    fed = await feed(
        [commit(1, "a", "b"), commit(2, "c", "d", "e")], lambda change: taken.append(change.id), changes_per_slice=2
    )
    await watching

    assert fed
    assert taken == ["a", "b", "c", "d", "e"]
    assert turns == [2, 4]


async def test_where_changes_were_lost_none_is_taken() -> None:
    taken: list[str] = []

    fed = await feed([commit(1, "a"), Resync(2)], lambda change: taken.append(change.id), changes_per_slice=2)

    assert not fed
    assert taken == []
