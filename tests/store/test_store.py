"""The store: group commit, batches, terms, and the same tables on every manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.errors import (
    AlreadyExistsError,
    DamagedStateError,
    InternalError,
    NotFoundError,
    NotLeaderError,
    ResourceExhaustedError,
    SwarmError,
)
from swarmcore.store.changes import Commit, Resync
from swarmcore.store.store import MAX_TRANSACTION_BYTES, Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.store import ImmediateProposer, running_store


class HeldProposer(ImmediateProposer):
    """Agrees when the test says so."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def propose(self, data: bytes, token: object) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        await super().propose(data, token)


@asynccontextmanager
async def held_store() -> AsyncIterator[tuple[Store, HeldProposer]]:
    store = Store(clock=lambda: 1_700_000_000.0, checked=True)
    proposer = HeldProposer(store)
    store.connect(proposer)
    writer = asyncio.create_task(store.run())
    try:
        yield store, proposer
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


def create(id: str, size: int = 0) -> Callable[[Transaction], None]:
    def write(tx: Transaction) -> None:
        task = Task(id=id, service_id="s")
        task.status.message = "x" * size
        tx.task.create(task)

    return write


def proposer_of(store: Store) -> ImmediateProposer:
    proposer = store._proposer
    assert isinstance(proposer, ImmediateProposer)
    return proposer


async def entry_of(write: Callable[[Transaction], None]) -> bytes:
    async with running_store() as store:
        await store.update(write)
        return proposer_of(store).entries[0]


def ids(store: Store) -> list[str]:
    return [task.id for task in store.view.task.all()]


async def test_an_update_returns_what_its_function_returned_once_applied() -> None:
    async with running_store() as store:

        def write(tx: Transaction) -> str:
            create("a")(tx)
            return "result"

        assert await store.update(write) == "result"
        assert ids(store) == ["a"]
        assert store.version == 1


async def test_what_a_function_raises_reaches_its_caller_and_changes_nothing() -> None:
    async with running_store() as store:

        def write(tx: Transaction) -> None:
            create("a")(tx)
            raise NotFoundError("nothing here")

        with pytest.raises(NotFoundError, match="nothing here"):
            await store.update(write)
        assert ids(store) == []
        assert proposer_of(store).entries == []


async def test_functions_that_wait_together_become_one_entry_and_fail_alone() -> None:
    async with held_store() as (store, proposer):
        first = asyncio.create_task(store.update(create("first")))
        await asyncio.sleep(0)
        outcomes = [asyncio.create_task(store.update(create(id))) for id in ("a", "b", "a", "c")]
        await asyncio.sleep(0)
        proposer.gate.set()

        results = await asyncio.gather(first, *outcomes, return_exceptions=True)

        assert [type(result) for result in results] == [type(None)] * 3 + [AlreadyExistsError, type(None)]
        assert len(proposer.entries) == 2
        assert ids(store) == ["first", "a", "b", "c"]


async def test_an_update_that_writes_nothing_makes_no_entry() -> None:
    async with running_store() as store:
        assert await store.update(lambda tx: len(tx.task)) == 0
        assert proposer_of(store).entries == []


async def test_each_transaction_is_published_once() -> None:
    async with running_store() as store:
        with store.subscribe() as changes:
            await store.update(create("a"))
            await store.update(lambda tx: tx.task.delete("a"))

            commits = changes.drain()
        assert [
            (commit.version, [(change.old is None, change.new is None) for change in commit.changes])
            for commit in commits
            if isinstance(commit, Commit)
        ] == [(1, [(True, False)]), (2, [(False, True)])]


async def test_a_batch_tells_for_each_item_what_it_raised() -> None:
    async with running_store() as store:
        outcomes = await store.batch(["a", "b", "a"], lambda tx, id: create(id)(tx))

        assert [type(outcome) for outcome in outcomes] == [type(None), type(None), AlreadyExistsError]
        assert ids(store) == ["a", "b"]


async def test_a_large_batch_is_split_into_entries_that_fit() -> None:
    async with running_store() as store:
        count = 60
        outcomes = await store.batch(range(count), lambda tx, number: create(f"task-{number}", 100_000)(tx))

        assert outcomes == [None] * count
        assert ids(store) == [f"task-{number}" for number in range(count)]
        entries = proposer_of(store).entries
        assert len(entries) > 1
        assert max(map(len, entries)) <= MAX_TRANSACTION_BYTES


async def test_single_updates_are_split_into_entries_that_fit() -> None:
    async with running_store() as store:
        await asyncio.gather(*(store.update(create(f"task-{number}", 900_000)) for number in range(5)))

        assert ids(store) == [f"task-{number}" for number in range(5)]
        assert max(map(len, proposer_of(store).entries)) <= MAX_TRANSACTION_BYTES


async def test_what_is_too_large_for_any_entry_is_refused() -> None:
    async with running_store() as store:
        with pytest.raises(ResourceExhaustedError, match="larger than a transaction may be"):
            await store.update(create("a", MAX_TRANSACTION_BYTES + 1))
        outcomes = await store.batch([MAX_TRANSACTION_BYTES + 1, 1], lambda tx, size: create(f"{size}", size)(tx))

        assert [type(outcome) for outcome in outcomes] == [ResourceExhaustedError, type(None)]
        assert ids(store) == ["1"]


async def test_a_small_write_does_not_wait_for_the_end_of_a_large_batch() -> None:
    async with running_store() as store:
        batch = asyncio.create_task(store.batch(range(100), lambda tx, n: create(f"batch-{n}", 200_000)(tx)))
        await asyncio.sleep(0)
        await store.update(create("small"))

        assert not batch.done()
        await batch


async def test_a_failing_iterable_is_its_callers_problem() -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise ValueError("the list ended badly")

    async with running_store() as store:
        with pytest.raises(ValueError, match="the list ended badly"):
            await store.batch(items(), lambda tx, id: create(id)(tx))

        await store.update(create("b"))
        assert "b" in ids(store)


async def test_without_leadership_nothing_is_written() -> None:
    async with running_store() as store:
        proposer_of(store).term = 0

        with pytest.raises(NotLeaderError):
            await store.update(create("a"))


async def test_a_write_of_an_earlier_term_is_refused() -> None:
    async with running_store() as store:
        writer = store.writer(1)
        await writer.update(create("a"))
        proposer_of(store).term = 2

        with pytest.raises(NotLeaderError, match="leadership of term 1 is over"):
            await writer.update(create("b"))
        with pytest.raises(NotLeaderError, match="leadership of term 1 is over"):
            await writer.batch(["b"], lambda tx, id: create(id)(tx))
        assert ids(store) == ["a"]


async def test_a_batch_ends_when_its_term_does() -> None:
    async with running_store() as store:
        writer = store.writer(1)

        def write(tx: Transaction, number: int) -> None:
            if number == 30:
                proposer_of(store).term = 2
            create(f"task-{number}", 100_000)(tx)

        with pytest.raises(NotLeaderError, match="term 1 is over"):
            await writer.batch(range(60), write)
        assert 0 < len(ids(store)) < 60


async def test_a_refused_proposal_fails_everyone_in_it_and_nobody_after() -> None:
    async with held_store() as (store, proposer):
        proposer.error = ResourceExhaustedError("the disk is full")
        doomed = [asyncio.create_task(store.update(create(id))) for id in ("a", "b")]
        proposer.gate.set()
        results = await asyncio.gather(*doomed, return_exceptions=True)
        proposer.error = None

        assert [type(result) for result in results] == [ResourceExhaustedError] * 2
        await store.update(create("a"))
        assert ids(store) == ["a"]


async def test_when_the_writer_stops_everyone_who_waits_is_told() -> None:
    async with held_store() as (store, _):
        waiting = [asyncio.create_task(store.update(create(id))) for id in ("a", "b")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(store.update(create("c"))))
        await asyncio.sleep(0)

    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, NotLeaderError)
    with pytest.raises(NotLeaderError, match="the manager is stopping"):
        await store.update(create("d"))


async def test_a_caller_that_gave_up_is_skipped() -> None:
    async with held_store() as (store, proposer):
        first = asyncio.create_task(store.update(create("a")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone = asyncio.create_task(store.update(create("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        proposer.gate.set()
        await first
        await store.update(create("b"))

        assert ids(store) == ["a", "b"]


async def test_a_function_that_writes_must_not_be_async() -> None:
    async with running_store() as store:

        async def write(tx: Transaction) -> None:
            create("a")(tx)

        with pytest.raises(InternalError, match="must not be async"):
            await store.update(lambda tx: cast(None, write(tx)))


async def test_an_object_changed_after_it_was_given_away_is_found() -> None:
    async with held_store() as (store, proposer):
        task = Task(id="a")
        written = asyncio.create_task(store.update(lambda tx: tx.task.create(task)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.node_id = "changed"
        proposer.gate.set()

        with pytest.raises(InternalError, match="was changed after it was given to the store"):
            await written


async def test_an_object_of_the_view_changed_in_place_is_found() -> None:
    store = Store(checked=True)
    store.apply(1, await entry_of(create("a")))
    task = store.view.task.get("a")
    assert task is not None
    task.node_id = "changed"

    with pytest.raises(InternalError, match="copy them first"):
        store.check()


async def test_the_log_gives_another_manager_equal_tables() -> None:
    async with running_store() as store:
        await store.update(create("a"))
        await store.batch(["b", "c"], lambda tx, id: create(id)(tx))
        await store.update(lambda tx: tx.task.delete("a"))
        follower = Store(checked=True)
        with follower.subscribe() as changes:
            for index, data in enumerate(proposer_of(store).entries, 1):
                follower.apply(index, data)

            assert len(changes.drain()) == 3
        assert list(follower.snapshot()) == list(store.snapshot())
        assert follower.version == store.version


async def test_a_snapshot_restores_to_equal_tables_and_everyone_resyncs() -> None:
    async with running_store() as store:
        await store.batch(range(3000), lambda tx, number: create(f"task-{number}", 300)(tx))
        pieces = list(store.snapshot())
        other = Store(checked=True)
        view = other.view
        with other.subscribe(["node"]) as changes:
            other.restore(17, pieces)

            assert changes.drain() == [Resync(17)]
        assert len(pieces) > 2
        assert list(other.snapshot()) == pieces
        assert [task.id for task in view.task.by("service", "s")] == ids(store)


async def test_a_snapshot_is_of_the_moment_it_was_taken() -> None:
    async with running_store() as store:
        await store.update(create("a"))
        pieces = store.snapshot()
        await store.update(create("b"))

        other = Store()
        other.restore(1, pieces)
        assert ids(other) == ["a"]


async def test_readers_see_the_old_state_until_a_snapshot_is_whole() -> None:
    async with running_store() as store:
        await store.update(create("a"))
        other = Store()
        restoring = other.restoring()
        for piece in store.snapshot():
            restoring.add(piece)
            assert ids(other) == []
        restoring.finish(1)

        assert ids(other) == ["a"]


async def test_a_table_of_a_later_version_is_no_guess() -> None:
    from swarmcore.api.store_pb2 import StoreSnapshotPiece
    from swarmcore.api.store_pb2 import Transaction as Entry

    entry = Entry()
    entry.changes.add(table="planet", object=b"")
    with pytest.raises(DamagedStateError, match="a table 'planet' that this version does not know"):
        Store().apply(1, entry.SerializeToString())
    with pytest.raises(DamagedStateError, match="a table 'planet' that this version does not know"):
        Store().restore(1, [StoreSnapshotPiece(table="planet", objects=[b""]).SerializeToString()])


async def test_names_of_services_are_unique_across_writers() -> None:
    def write(id: str) -> Callable[[Transaction], None]:
        def named(tx: Transaction) -> None:
            service = Service(id=id)
            service.spec.annotations.name = "web"
            tx.service.create(service)

        return named

    async with running_store() as store:
        writes: list[Awaitable[None]] = [store.update(write(f"service-{number}")) for number in range(5)]
        results = await asyncio.gather(*writes, return_exceptions=True)

        assert sum(result is None for result in results) == 1
        assert all(isinstance(result, SwarmError) for result in results if result is not None)


async def test_a_status_write_that_changes_more_is_found() -> None:
    async with running_store() as store:
        await store.update(create("a"))

        def move(tx: Transaction) -> None:
            new = Task()
            new.CopyFrom(cast(Task, tx.task.get("a")))
            new.node_id = "elsewhere"
            tx.task.update_status(new)

        with pytest.raises(InternalError, match="more than its status was changed"):
            await store.update(move)
