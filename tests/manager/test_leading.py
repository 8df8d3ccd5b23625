"""What runs only while a manager leads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from swarmcore.api.objects_pb2 import Config
from swarmcore.errors import DamagedStateError, NotLeaderError, ResourceExhaustedError
from swarmcore.manager import leading as leading_module
from swarmcore.manager.leading import lead
from swarmcore.store.store import LeaderStore, Store
from swarmcore.testing.clock import let_the_loop_run
from swarmcore.testing.store import running_store


class Terms:
    """Leadership that changes when a test says so."""

    def __init__(self) -> None:
        self.term = 0
        self._changed = asyncio.Event()

    async def wait_leadership_change(self, known: int) -> int:
        while self.term == known:
            self._changed.clear()
            await self._changed.wait()
        return self.term

    async def become(self, term: int) -> None:
        self.term = term
        self._changed.set()
        await let_the_loop_run()


class Component:
    name = "component"

    def __init__(self, failures: int = 0) -> None:
        self.running: list[int] = []
        self.started: list[int] = []
        self.stores: list[LeaderStore] = []
        self.failures = failures

    async def run(self, store: LeaderStore) -> None:
        self.started.append(store.term)
        self.stores.append(store)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a bug")
        self.running.append(store.term)
        try:
            await asyncio.Event().wait()
        finally:
            self.running.remove(store.term)


async def prepared(store: LeaderStore) -> None:
    assert store.term


@contextlib.asynccontextmanager
async def leading(terms: Terms, store: Store, *components: Component) -> AsyncIterator[None]:
    task = asyncio.create_task(lead(terms, store, components, prepared))
    await let_the_loop_run()
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_components_run_while_the_manager_leads_and_never_longer() -> None:
    terms, one, two = Terms(), Component(), Component()
    async with running_store() as store, leading(terms, store, one, two):
        assert not one.running
        await terms.become(3)
        assert one.running == two.running == [3]
        await terms.become(0)
        assert one.running == two.running == []
        await terms.become(5)
        assert one.running == two.running == [5]
    assert one.running == []
    assert one.started == [3, 5]


async def test_a_component_that_fails_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    terms, bad, good = Terms(), Component(failures=1), Component()
    async with running_store() as store, leading(terms, store, bad, good):
        await terms.become(1)

        assert good.running == [1]
        assert "component failed and starts again" in caplog.text


async def test_a_component_that_fails_because_it_is_stopped_stays_stopped(caplog: pytest.LogCaptureFixture) -> None:
    class Hasty(Component):
        async def run(self, store: LeaderStore) -> None:
            self.started.append(store.term)
            try:
                await asyncio.Event().wait()
            finally:
                raise NotLeaderError("the term ended in the middle of a write")

    terms, hasty = Terms(), Hasty()
    async with running_store() as store, leading(terms, store, hasty):
        await terms.become(1)
        await terms.become(0)
        await terms.become(2)

        assert hasty.started == [1, 2]
    assert "starts again" not in caplog.text


async def test_a_write_of_an_older_term_is_refused() -> None:
    terms, component = Terms(), Component()
    async with running_store() as store, leading(terms, store, component):
        await terms.become(1)
        old = component.stores[0]
        await terms.become(2)

        # The store's own term is 1 here, so the writer of term 2 is the stale one.
        await old.update(lambda tx: tx.config.create(Config(id="a")))
        with pytest.raises(NotLeaderError):
            await component.stores[1].update(lambda tx: tx.config.create(Config(id="b")))
        assert "b" not in store.view.config


async def test_a_term_that_cannot_begin_ends_the_manager_with_the_reason() -> None:
    async def damaged(store: LeaderStore) -> None:
        raise DamagedStateError("the log has no cluster")

    terms = Terms()
    async with running_store() as store:
        work = asyncio.create_task(lead(terms, store, [], damaged))
        await let_the_loop_run()
        await terms.become(1)

        with pytest.raises(DamagedStateError, match="no cluster"):
            await asyncio.wait_for(work, 5)


async def test_a_full_disk_delays_the_term_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leading_module, "PREPARE_AGAIN_SECONDS", 0.0)
    tries = 0

    async def full_at_first(store: LeaderStore) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ResourceExhaustedError("the disk is full")

    terms, component = Terms(), Component()
    async with running_store() as store:
        work = asyncio.create_task(lead(terms, store, [component], full_at_first))
        await let_the_loop_run()
        await terms.become(1)
        await let_the_loop_run()

        assert component.running == [1]
        assert caplog.text.count("can't lead yet: the disk is full") == 1
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


async def test_a_component_that_does_not_stop_is_named_and_left_behind_and_its_writes_are_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leading_module, "STOP_SECONDS", 0.01)
    released = asyncio.Event()

    class Stubborn(Component):
        name = "stubborn"

        async def run(self, store: LeaderStore) -> None:
            self.stores.append(store)
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()

    terms, stubborn, other = Terms(), Stubborn(), Component()
    async with running_store() as store, leading(terms, store, stubborn, other):
        await terms.become(2)
        await terms.become(0)
        async with asyncio.timeout(10):
            while "left behind" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.001)

        assert "the last term is over, and stubborn did not stop" in caplog.text
        assert other.running == []
        with pytest.raises(NotLeaderError):
            await stubborn.stores[0].update(lambda tx: tx.config.create(Config(id="late")))
        assert "late" not in store.view.config
        released.set()
        await let_the_loop_run()
