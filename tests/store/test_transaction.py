"""A transaction sees its own writes, refuses what conflicts, and can be taken back."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.errors import AlreadyExistsError, InternalError, NotFoundError, SequenceConflictError
from swarmcore.store.changes import Change, StatusChange
from swarmcore.store.tables import SCHEMAS, Table
from swarmcore.store.transaction import Transaction

STAMP = Timestamp(seconds=1_700_000_000)


@pytest.fixture
def tx() -> Transaction:
    tables = {schema.table: Table(schema) for schema in SCHEMAS}
    tables["task"].put(task("base", version=3))
    tables["service"].put(service("base", "Web", version=3))
    return Transaction(tables, 7, STAMP)


def task(id: str, node: str = "", version: int = 0) -> Task:
    new = Task(id=id, service_id="s", node_id=node)
    new.meta.version.index = version
    return new


def service(id: str, name: str, version: int = 0) -> Service:
    new = Service(id=id)
    new.spec.annotations.name = name
    new.meta.version.index = version
    return new


def test_a_created_object_gets_version_and_times(tx: Transaction) -> None:
    new = task("new")

    tx.task.create(new)

    assert (new.meta.version.index, new.meta.created_at, new.meta.updated_at) == (7, STAMP, STAMP)


def test_an_updated_object_gets_version_and_time_and_keeps_its_birth(tx: Transaction) -> None:
    new = task("base", "n", version=3)

    tx.task.update(new)

    assert (new.meta.version.index, new.meta.updated_at) == (7, STAMP)
    assert not new.meta.HasField("created_at")


def test_an_update_out_of_sequence_is_refused(tx: Transaction) -> None:
    with pytest.raises(SequenceConflictError, match="update out of sequence"):
        tx.task.update(task("base", version=2))

    assert tx.outcome() == ((), b"")


def test_a_second_update_needs_what_the_first_one_wrote(tx: Transaction) -> None:
    tx.task.update(task("base", "n1", version=3))

    with pytest.raises(SequenceConflictError):
        tx.task.update(task("base", "n2", version=3))
    tx.task.update(task("base", "n2", version=7))


def test_what_does_not_exist_can_not_be_changed(tx: Transaction) -> None:
    with pytest.raises(NotFoundError, match="task 'none' not found"):
        tx.task.update(task("none"))
    with pytest.raises(NotFoundError, match="task 'none' not found"):
        tx.task.delete("none")


def test_an_id_is_taken_once(tx: Transaction) -> None:
    with pytest.raises(AlreadyExistsError, match="task 'base' exists already"):
        tx.task.create(task("base"))


@pytest.mark.parametrize("name", ["Web", "web", "WEB"])
def test_a_name_is_taken_once_whatever_its_case(tx: Transaction, name: str) -> None:
    with pytest.raises(AlreadyExistsError, match="name conflicts with an existing object"):
        tx.service.create(service("new", name))


def test_a_name_can_not_be_taken_by_renaming(tx: Transaction) -> None:
    tx.service.create(service("new", "db"))

    with pytest.raises(AlreadyExistsError, match="name conflicts"):
        tx.service.update(service("new", "web", version=7))


def test_a_name_is_free_once_its_holder_is_gone_in_the_same_transaction(tx: Transaction) -> None:
    tx.service.delete("base")

    tx.service.create(service("new", "web"))

    assert [found.id for found in tx.service.by_name("WEB")] == ["new"]


def test_an_object_may_change_the_case_of_its_own_name(tx: Transaction) -> None:
    tx.service.update(service("base", "WEB", version=3))

    assert [found.spec.annotations.name for found in tx.service.by_name("web")] == ["WEB"]


def test_tasks_may_share_a_name(tx: Transaction) -> None:
    for id in ("a", "b"):
        new = task(id)
        new.annotations.name = "web.1"
        tx.task.create(new)

    assert len(tx.task.by_name("web.1")) == 2


def test_the_object_of_the_store_itself_is_refused(tx: Transaction) -> None:
    old = tx.task.get("base")
    assert old is not None

    with pytest.raises(InternalError, match="copy it, then update"):
        tx.task.update(old)


def test_reads_see_the_writes_before_them(tx: Transaction) -> None:
    tx.task.create(task("new", "n"))
    tx.task.update(task("base", "n", version=3))
    assert {found.id for found in tx.task.by("node", "n")} == {"new", "base"}
    tx.task.delete("base")

    assert [found.id for found in tx.task.all()] == ["new"]
    assert [found.id for found in tx.task.by("node", "n")] == ["new"]
    assert len(tx.task) == 1
    assert "new" in tx.task and "base" not in tx.task
    assert tx.task.get("base") is None


def test_rollback_takes_back_to_the_mark_and_no_further(tx: Transaction) -> None:
    tx.task.create(task("kept", "n"))
    size, mark = tx.bytes, tx.mark
    tx.task.by("node", "n")
    tx.task.create(task("gone", "n"))
    tx.task.update(task("kept", "other", version=7))
    tx.task.delete("base")

    tx.rollback(mark)

    assert {found.id for found in tx.task.all()} == {"base", "kept"}
    assert [found.id for found in tx.task.by("node", "n")] == ["kept"]
    assert len(tx.task.by("node", "other")) == 0
    assert tx.bytes == size


def test_what_comes_and_goes_in_one_transaction_leaves_no_trace(tx: Transaction) -> None:
    tx.task.create(task("new"))
    tx.task.delete("new")

    assert tx.outcome() == ((), b"")


def test_many_writes_of_one_object_are_one_change(tx: Transaction) -> None:
    before = tx.task.get("base")
    tx.task.update(task("base", "n1", version=3))
    tx.task.update(task("base", "n2", version=7))

    (change,), _ = tx.outcome()

    assert (change.old, change.new) == (before, tx.task.get("base"))
    assert change.new is not None and change.new.node_id == "n2"


def test_what_is_split_off_is_made_by_the_next_transaction(tx: Transaction) -> None:
    mark = tx.mark
    tx.task.create(task("new"))
    tx.task.update(task("base", "n", version=3))

    rest = tx.split(mark)
    assert tx.outcome() == ((), b"")
    tables = {schema.table: Table(schema) for schema in SCHEMAS}
    tables["task"].put(task("base", version=3))
    after = Transaction(tables, 8, STAMP)
    after.resume(rest)

    changes, _ = after.outcome()
    assert [(change.id, change.new.meta.version.index) for change in changes if change.new is not None] == [
        ("new", 8),
        ("base", 8),
    ]


def test_a_status_write_is_told_apart_from_other_changes(tx: Transaction) -> None:
    new = task("base", version=3)
    new.status.message = "started"
    tx.task.update_status(new)

    (change,), _ = tx.outcome()

    assert type(change) is StatusChange


def test_a_status_write_after_another_write_of_the_object_is_a_change_like_any(tx: Transaction) -> None:
    tx.task.update(task("base", "n1", version=3))
    tx.task.update_status(task("base", "n1", version=7))

    (change,), _ = tx.outcome()

    assert type(change) is Change
