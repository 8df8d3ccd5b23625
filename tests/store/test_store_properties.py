"""Whatever is written, by however many: what the log says, what a snapshot says and what is in memory are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.errors import SwarmError
from swarmcore.store.changes import Commit
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.store import ImmediateProposer, running_store

IDS = ["a", "b", "c", "d"]
NODES = ["", "n1", "n2"]
NAMES = ["web", "WEB", "db", "cache"]


@dataclass(frozen=True, slots=True)
class Step:
    table: str
    action: str
    id: str
    node: str
    name: str


steps = st.builds(
    Step,
    table=st.sampled_from(["task", "service"]),
    action=st.sampled_from(["create", "update", "stale", "delete", "fail"]),
    id=st.sampled_from(IDS),
    node=st.sampled_from(NODES),
    name=st.sampled_from(NAMES),
)
updates = st.lists(st.lists(steps, min_size=1, max_size=4), max_size=6)
rounds = st.lists(updates, max_size=5)


def carry_out(tx: Transaction, step: Step) -> None:
    new: Task | Service
    if step.table == "task":
        new = Task(id=step.id, service_id="s", node_id=step.node)
    else:
        new = Service(id=step.id)
        new.spec.annotations.name = step.name
    table = tx.table(step.table)
    if step.action == "fail":
        raise SwarmError("on purpose")
    if step.action == "create":
        table.create(new)
    elif step.action == "delete":
        table.delete(step.id)
    else:
        old = table.get(step.id)
        if old is not None:
            new.meta.CopyFrom(old.meta)
        if step.action == "stale":
            new.meta.version.index += 1
        table.update(new)


def function(steps: list[Step]) -> Callable[[Transaction], None]:
    def write(tx: Transaction) -> None:
        for step in steps:
            carry_out(tx, step)
            for table in (tx.task, tx.service):
                assert sorted(obj.id for obj in table.all()) == sorted(id for id in IDS if id in table)
                assert len(table) == len(table.all())
            for node in NODES[1:]:
                found = {task.id for task in tx.task.by("node", node)}
                assert found == {task.id for task in tx.task.all() if task.node_id == node}

    return write


def check_indexes(store: Store) -> None:
    for node in NODES[1:]:
        expected = {task.id for task in store.view.task.all() if task.node_id == node}
        assert {task.id for task in store.view.task.by("node", node)} == expected
    names = [service.spec.annotations.name.lower() for service in store.view.service.all()]
    assert len(names) == len(set(names))


@settings(max_examples=150, deadline=None)
@given(rounds)
def test_log_snapshot_and_changes_agree_with_memory(rounds: list[list[list[Step]]]) -> None:
    asyncio.run(write_and_compare(rounds))


async def write_and_compare(rounds: list[list[list[Step]]]) -> None:
    mirror: dict[tuple[str, str], bytes] = {}
    async with running_store() as store:
        proposer = store._proposer
        assert isinstance(proposer, ImmediateProposer)
        with store.subscribe() as changes:
            for together in rounds:
                results = await asyncio.gather(
                    *(store.update(function(one)) for one in together), return_exceptions=True
                )
                assert all(result is None or isinstance(result, SwarmError) for result in results)
            for commit in changes.drain():
                assert isinstance(commit, Commit)
                for change in commit.changes:
                    key = (change.table, change.id)
                    old = None if change.old is None else change.old.SerializeToString(deterministic=True)
                    assert mirror.get(key) == old
                    if change.new is None:
                        del mirror[key]
                    else:
                        assert change.new.meta.version.index == commit.version
                        mirror[key] = change.new.SerializeToString(deterministic=True)
        check_indexes(store)
        memory = {
            (name, obj.id): obj.SerializeToString(deterministic=True)
            for name in ("task", "service")
            for obj in store.view.table(name).all()
        }
        assert mirror == memory

        follower = Store(checked=True)
        for index, data in enumerate(proposer.entries, 1):
            follower.apply(index, data)
        restored = Store(checked=True)
        restored.restore(len(proposer.entries), store.snapshot())
        for other in (follower, restored):
            check_indexes(other)
            assert list(other.snapshot()) == list(store.snapshot())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=900_000), max_size=12), st.booleans())
def test_writes_of_any_size_are_all_made_once_in_order(sizes: list[int], in_batch: bool) -> None:
    asyncio.run(write_sizes(sizes, in_batch))


async def write_sizes(sizes: list[int], in_batch: bool) -> None:
    def write(tx: Transaction, item: tuple[int, int]) -> None:
        task = Task(id=f"task-{item[0]}")
        task.status.message = "x" * item[1]
        tx.task.create(task)

    async with running_store() as store:
        items = list(enumerate(sizes))
        if in_batch:
            assert await store.batch(items, write) == [None] * len(items)
        else:
            await asyncio.gather(*(store.update(partial(write, item=item)) for item in items))

        assert [task.id for task in store.view.task.all()] == [f"task-{number}" for number, _ in items]
        assert [len(task.status.message) for task in store.view.task.all()] == sizes
