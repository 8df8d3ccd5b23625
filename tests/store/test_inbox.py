"""Waiting for changes or a moment loses nothing."""

from __future__ import annotations

import asyncio

from swarmcore.api.objects_pb2 import Node
from swarmcore.store.changes import Commit
from swarmcore.store.inbox import Inbox
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.store import running_store


async def test_a_wait_ends_with_the_first_change() -> None:
    clock = SimulatedClock()
    async with running_store() as store:
        with Inbox(store.subscribe(("node",)), clock) as inbox:
            waiting = asyncio.create_task(inbox.wait(None))
            await let_the_loop_run()
            assert not waiting.done()

            await store.update(lambda tx: tx.node.create(Node(id="n")))
            await waiting

            (commit,) = inbox.take()
            assert isinstance(commit, Commit)
            assert [change.id for change in commit.changes] == ["n"]


async def test_a_wait_ends_at_its_deadline_and_loses_nothing() -> None:
    clock = SimulatedClock()
    async with running_store() as store:
        with Inbox(store.subscribe(("node",)), clock) as inbox:
            waiting = asyncio.create_task(inbox.wait(clock.monotonic() + 1.0))
            await clock.advance(1.0)
            await waiting
            assert inbox.take() == []

            await store.update(lambda tx: tx.node.create(Node(id="n")))
            await inbox.wait(clock.monotonic() + 1.0)

            assert len(inbox.take()) == 1


async def test_a_cancelled_wait_leaves_the_change_for_the_next() -> None:
    clock = SimulatedClock()
    async with running_store() as store:
        with Inbox(store.subscribe(("node",)), clock) as inbox:
            waiting = asyncio.create_task(inbox.wait(None))
            await let_the_loop_run()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

            await store.update(lambda tx: tx.node.create(Node(id="n")))
            await inbox.wait(None)

            assert len(inbox.take()) == 1
