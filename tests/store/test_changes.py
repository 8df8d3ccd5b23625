"""Changes: once each, in order, and an explicit resync instead of a gap."""

from __future__ import annotations

import asyncio

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.store.changes import Change, Commit, Publisher, Resync


def commit(version: int, *tables: str) -> Commit:
    objects = {"task": Task(id="t"), "node": Node(id="n")}
    return Commit(version, tuple(Change(table, None, objects[table]) for table in tables))


async def test_a_subscriber_gets_what_it_follows_in_order() -> None:
    publisher = Publisher()
    with publisher.subscribe(["task"], 100) as tasks, publisher.subscribe(None, 100) as everything:
        published = [commit(1, "task"), commit(2, "node"), commit(3, "task", "node")]
        for one in published:
            publisher.publish(one)

        assert tasks.drain() == [commit(1, "task"), commit(3, "task")]
        assert everything.drain() == published


async def test_a_waiting_subscriber_is_woken() -> None:
    publisher = Publisher()
    with publisher.subscribe(None, 100) as subscription:
        waiting = asyncio.create_task(subscription.get())
        await asyncio.sleep(0)
        publisher.publish(commit(1, "task"))

        assert await waiting == commit(1, "task")


async def test_a_slow_subscriber_is_told_to_resync_and_goes_on_from_there() -> None:
    publisher = Publisher()
    with publisher.subscribe(None, 2) as slow, publisher.subscribe(None, 100) as quick:
        for version in (1, 2, 3):
            publisher.publish(commit(version, "task"))
        publisher.publish(commit(4, "task"))

        assert slow.drain() == [Resync(3), commit(4, "task")]
        assert len(quick.drain()) == 4


async def test_what_was_taken_does_not_count_as_waiting() -> None:
    publisher = Publisher()
    with publisher.subscribe(None, 2) as subscription:
        for version in range(1, 20):
            publisher.publish(commit(version, "task"))
            assert await subscription.get() == commit(version, "task")


async def test_a_resync_concerns_everybody() -> None:
    publisher = Publisher()
    with publisher.subscribe(["node"], 10) as nodes:
        publisher.publish(commit(1, "node"))
        publisher.publish(Resync(5))

        assert nodes.drain() == [Resync(5)]


async def test_a_closed_subscription_gets_nothing_more() -> None:
    publisher = Publisher()
    subscription = publisher.subscribe(None, 10)
    subscription.close()
    publisher.publish(commit(1, "task"))

    assert subscription.drain() == []


async def test_a_change_names_its_object_also_when_that_is_gone() -> None:
    assert Change("task", Task(id="old"), None).id == "old"
    assert Change("task", None, Task(id="new")).id == "new"
