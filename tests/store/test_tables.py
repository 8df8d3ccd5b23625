"""Tables: objects by id, index entries in step with them, and changes in place found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.errors import InternalError
from swarmcore.store.tables import SCHEMA_OF, SCHEMAS, Table


def task(id: str, service: str = "s", node: str = "", slot: int = 0) -> Task:
    return Task(id=id, service_id=service, node_id=node, slot=slot)


def test_there_is_a_table_for_each_kind_of_object() -> None:
    kinds = ["cluster", "node", "service", "task", "network", "secret", "config", "volume", "extension", "resource"]

    assert [schema.table for schema in SCHEMAS] == kinds


def test_a_table_iterates_in_order_of_insertion() -> None:
    table: Table[Task] = Table(SCHEMA_OF["task"])
    for id in ("c", "a", "b"):
        table.put(task(id))
    table.put(task("c", node="n"))

    assert [obj.id for obj in table] == ["c", "a", "b"]


def test_an_object_is_found_by_each_of_its_keys() -> None:
    table: Table[Task] = Table(SCHEMA_OF["task"])
    table.put(task("a", "s", "n", 1))
    table.put(task("b", "s", "n", 2))

    assert [obj.id for obj in table.by("service", "s")] == ["a", "b"]
    assert [obj.id for obj in table.by("node", "n")] == ["a", "b"]
    assert [obj.id for obj in table.by("slot", ("s", 2))] == ["b"]
    assert len(table.by("node", "other")) == 0


def test_a_task_of_a_global_service_has_its_node_for_a_slot() -> None:
    table: Table[Task] = Table(SCHEMA_OF["task"])
    table.put(task("a", "s", "n"))

    assert [obj.id for obj in table.by("slot", ("s", "n"))] == ["a"]


def test_replacing_moves_the_index_entries() -> None:
    table: Table[Task] = Table(SCHEMA_OF["task"])
    table.put(task("a", node="n1"))
    table.put(task("a", node="n2"))

    assert len(table.by("node", "n1")) == 0
    assert [obj.id for obj in table.by("node", "n2")] == ["a"]


def test_removing_leaves_nothing_behind() -> None:
    table: Table[Task] = Table(SCHEMA_OF["task"])
    table.put(task("a", node="n"))

    removed = table.remove("a")

    assert removed == task("a", node="n")
    assert table.remove("a") is None
    assert len(table) == len(table.by("node", "n")) == len(table.by("service", "s")) == 0


def test_a_bucket_is_counted_without_a_look_at_its_objects() -> None:
    table: Table[Task] = Table(SCHEMA_OF["task"])
    table.put(task("a"))

    bucket = table.by("service", "s")

    assert len(bucket) == 1
    assert task("a") in bucket
    assert task("b") not in bucket
    assert "a" not in bucket


def test_names_are_found_whatever_their_case() -> None:
    table: Table[Service] = Table(SCHEMA_OF["service"])
    service = Service(id="a")
    service.spec.annotations.name = "Web"
    table.put(service)

    assert [obj.id for obj in table.by_name("wEB")] == ["a"]


def test_a_service_is_found_by_what_it_refers_to() -> None:
    table: Table[Service] = Table(SCHEMA_OF["service"])
    service = Service(id="a")
    for _ in range(2):
        service.spec.task.container.secrets.add(secret_id="secret")  # noqa: S106 - an id
        service.spec.task.container.configs.add(config_id="config")
    service.spec.task.networks.add(target="network")
    service.spec.networks.add(target="older")
    table.put(service)

    for index, key in (("secret", "secret"), ("config", "config"), ("network", "network"), ("network", "older")):
        assert [obj.id for obj in table.by(index, key)] == ["a"]


@pytest.mark.parametrize("find", ["check", "put", "remove"])
def test_a_change_in_place_is_found(find: str) -> None:
    table: Table[Task] = Table(SCHEMA_OF["task"], checked=True)
    table.put(task("a"))
    changed = table.get("a")
    assert changed is not None
    changed.node_id = "n"

    ways: dict[str, Callable[[], object]] = {
        "check": table.check,
        "put": lambda: table.put(task("a")),
        "remove": lambda: table.remove("a"),
    }
    with pytest.raises(InternalError, match="task 'a' was changed in place"):
        ways[find]()
