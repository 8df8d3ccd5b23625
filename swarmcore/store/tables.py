"""Tables of protobuf messages by id, with secondary indexes.

Objects in a table are read-only: who wants to change one copies it. Iteration follows insertion, which follows the
log, so every manager sees the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from swarmcore.api.objects_pb2 import (
    Cluster,
    Config,
    Extension,
    Meta,
    Network,
    Node,
    Resource,
    Secret,
    Service,
    Task,
    Volume,
)


class StoreObject(Protocol):
    """What every object of the store has."""

    id: str

    @property
    def meta(self) -> Meta: ...


T = TypeVar("T", bound=Any)
T_co = TypeVar("T_co", covariant=True)
Keys = Callable[[T], Iterable[object]]

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Schema(Generic[T]):
    """One kind of object: its table's name, its message class, its indexes, and whether names are unique."""

    table: str
    message: type[T]
    name: Callable[[T], str]
    unique_name: bool
    indexes: Mapping[str, Keys[T]] = field(default_factory=dict)


def _spec_name(obj: Any) -> str:
    return str(obj.spec.annotations.name)


def _own_name(obj: Any) -> str:
    return str(obj.annotations.name)


def _service_references(kind: str) -> Keys[Service]:
    def keys(service: Service) -> Iterable[object]:
        container = service.spec.task.container
        if kind == "secret":
            return {ref.secret_id: None for ref in container.secrets}
        if kind == "config":
            return {ref.config_id: None for ref in container.configs}
        return {att.target: None for att in (*service.spec.task.networks, *service.spec.networks)}

    return keys


SCHEMAS: tuple[Schema[Any], ...] = (
    Schema("cluster", Cluster, _spec_name, True),
    Schema("node", Node, lambda node: node.description.hostname, False),
    Schema(
        "service",
        Service,
        _spec_name,
        True,
        {kind: _service_references(kind) for kind in ("secret", "config", "network")},
    ),
    Schema(
        "task",
        Task,
        _own_name,
        False,
        {
            "service": lambda task: (task.service_id,) if task.service_id else (),
            "node": lambda task: (task.node_id,) if task.node_id else (),
            "slot": lambda task: ((task.service_id, task.slot or task.node_id),) if task.service_id else (),
        },
    ),
    Schema("network", Network, _spec_name, True),
    Schema("secret", Secret, _spec_name, True),
    Schema("config", Config, _spec_name, True),
    Schema("volume", Volume, _spec_name, True, {"group": lambda volume: (volume.spec.group,)}),
    Schema("extension", Extension, _own_name, True),
    Schema("resource", Resource, _own_name, True, {"kind": lambda resource: (resource.kind,)}),
)
SCHEMA_OF: Mapping[str, Schema[Any]] = {schema.table: schema for schema in SCHEMAS}


class TableReader(Protocol[T_co]):
    """What a view and a transaction offer of one table."""

    def get(self, id: str) -> T_co | None: ...
    def all(self) -> Collection[T_co]: ...
    def by(self, index: str, key: object) -> Collection[T_co]:
        """Objects whose `index` holds `key`."""
        ...

    def by_name(self, name: str) -> Collection[T_co]:
        """Objects of that name, whatever its case."""
        ...

    def __contains__(self, id: object) -> bool: ...
    def __len__(self) -> int: ...


class Table(Generic[T]):
    """One table and its indexes. `put` and `remove` keep them in step."""

    __slots__ = ("_indexes", "_objects", "schema")

    def __init__(self, schema: Schema[T]) -> None:
        self.schema = schema
        self._objects: dict[str, T] = {}
        self._indexes: dict[str, dict[object, dict[str, T]]] = {name: {} for name in (*schema.indexes, "name")}

    def get(self, id: str) -> T | None:
        return self._objects.get(id)

    def all(self) -> Collection[T]:
        return self._objects.values()

    def by(self, index: str, key: object) -> Collection[T]:
        return self._indexes[index].get(key, _EMPTY).values()

    def by_name(self, name: str) -> Collection[T]:
        return self.by("name", name.lower())

    def __contains__(self, id: object) -> bool:
        return id in self._objects

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def _keys(self, obj: T) -> Iterator[tuple[str, object]]:
        name = self.schema.name(obj)
        if name:
            yield "name", name.lower()
        for index, keys in self.schema.indexes.items():
            for key in keys(obj):
                yield index, key

    def put(self, obj: T) -> T | None:
        """Insert or replace by id; return what was there."""
        id = obj.id
        old = self._objects.get(id)
        self._objects[id] = obj
        indexes = self._indexes
        if old is None:
            for index, key in self._keys(obj):
                indexes[index].setdefault(key, {})[id] = obj
            return None
        before = list(self._keys(old))
        after = list(self._keys(obj))
        if before != after:
            for entry in before:
                if entry not in after:
                    self._drop(*entry, id)
        for index, key in after:
            indexes[index].setdefault(key, {})[id] = obj
        return old

    def remove(self, id: str) -> T | None:
        """Remove by id; return what was there."""
        old = self._objects.pop(id, None)
        if old is not None:
            for index, key in self._keys(old):
                self._drop(index, key, id)
        return old

    def _drop(self, index: str, key: object, id: str) -> None:
        bucket = self._indexes[index].get(key)
        if bucket is not None:
            bucket.pop(id, None)
            if not bucket:
                del self._indexes[index][key]
