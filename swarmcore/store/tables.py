"""Tables of protobuf messages by id, with secondary indexes.

Objects in a table are read-only: who wants to change one copies it. A table iterates in order of insertion, which
follows the log, so every manager sees the same order. An index iterates in the order in which its entries were made,
which a manager that started from a snapshot does not know: decide nothing replicated by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

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
from swarmcore.errors import InternalError


class StoreObject(Protocol):
    """What every object of the store has."""

    id: str

    @property
    def meta(self) -> Meta: ...


T = TypeVar("T", bound=Any)
T_co = TypeVar("T_co", covariant=True)
Keys = Callable[[T], Iterable[object]]
Entry: TypeAlias = tuple[str, object]
"""Index and key."""


@dataclass(frozen=True, slots=True)
class Schema(Generic[T]):
    """One kind of object: its table's name, its message class, its indexes, and whether names are unique."""

    table: str
    message: type[T]
    name: Callable[[T], str]
    unique_name: bool
    indexes: Mapping[str, Keys[T]] = field(default_factory=dict)

    def basis(self, obj: T) -> tuple[object, ...]:
        """What the index entries of `obj` follow from, to be compared and kept: here the entries themselves."""
        name = self.name(obj)
        entries: list[Entry] = [("name", name.lower())] if name else []
        for index, keys in self.indexes.items():
            for key in keys(obj):
                entries.append((index, key))
        return tuple(entries)

    def entries(self, basis: tuple[object, ...]) -> Sequence[Entry]:
        """Every index entry that follows from a basis."""
        return cast("Sequence[Entry]", basis)


class _TaskSchema(Schema[Task]):
    """Tasks are written more often than all the rest, mostly without a change of what they are found by."""

    def basis(self, obj: Task) -> tuple[object, ...]:
        name = obj.annotations.name if obj.HasField("annotations") else ""
        return obj.service_id, obj.node_id, obj.slot, name

    def entries(self, basis: tuple[object, ...]) -> Sequence[Entry]:
        service_id, node_id, slot, name = basis
        entries: list[Entry] = []
        if name:
            entries.append(("name", str(name).lower()))
        if service_id:
            entries.append(("service", service_id))
            entries.append(("slot", (service_id, slot or node_id)))
        if node_id:
            entries.append(("node", node_id))
        return entries


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
    _TaskSchema("task", Task, _own_name, False, dict.fromkeys(("service", "node", "slot"), lambda task: ())),
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


class Bucket(Collection[T]):
    """The objects of one index entry: counted at once, looked up when iterated."""

    __slots__ = ("_ids", "_objects")

    def __init__(self, ids: Mapping[str, None], objects: Mapping[str, T]) -> None:
        self._ids = ids
        self._objects = objects

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[T]:
        return map(self._objects.__getitem__, self._ids)

    def __contains__(self, obj: object) -> bool:
        id = str(getattr(obj, "id", ""))
        return id in self._ids and self._objects[id] == obj


class Table(Generic[T]):
    """One table and its indexes. `put` and `remove` keep them in step.

    With `checked`, the table remembers a digest of each object and raises InternalError once it finds one changed:
    when it is replaced or removed, and in `check`.
    """

    __slots__ = ("_bases", "_digests", "_indexes", "_objects", "schema")

    def __init__(self, schema: Schema[T], *, checked: bool = False) -> None:
        self.schema = schema
        self._objects: dict[str, T] = {}
        self._bases: dict[str, tuple[object, ...]] = {}
        self._indexes: dict[str, dict[object, dict[str, None]]] = {name: {} for name in (*schema.indexes, "name")}
        self._digests: dict[str, bytes] | None = {} if checked else None

    def get(self, id: str) -> T | None:
        return self._objects.get(id)

    @property
    def lookup(self) -> Callable[[str], T | None]:
        """`get`, for a caller that uses it very often: it stays right for as long as the table is."""
        return self._objects.get

    def all(self) -> Collection[T]:
        return self._objects.values()

    def by(self, index: str, key: object) -> Collection[T]:
        ids = self._indexes[index].get(key)
        return () if ids is None else Bucket(ids, self._objects)

    def by_name(self, name: str) -> Collection[T]:
        return self.by("name", name.lower())

    def __contains__(self, id: object) -> bool:
        return id in self._objects

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def put(self, obj: T, *, is_status: bool = False) -> T | None:
        """Insert or replace by id; return what was there. With `is_status` it is known to be found as before."""
        id = obj.id
        old = self._objects.get(id)
        if self._digests is not None:
            if old is not None:
                self._check(id, old)
            self._digests[id] = _digest(obj)
        self._objects[id] = obj
        if is_status:
            return old
        schema = self.schema
        basis = schema.basis(obj)
        known = self._bases.get(id)
        if known == basis:
            return old
        self._bases[id] = basis
        after = schema.entries(basis)
        if known is not None:
            for entry in schema.entries(known):
                if entry not in after:
                    self._drop(*entry, id)
        indexes = self._indexes
        for index, key in after:
            indexes[index].setdefault(key, {})[id] = None
        return old

    def remove(self, id: str) -> T | None:
        """Remove by id; return what was there."""
        old = self._objects.get(id)
        if old is None:
            return None
        if self._digests is not None:
            self._check(id, old)
            del self._digests[id]
        del self._objects[id]
        for index, key in self.schema.entries(self._bases.pop(id)):
            self._drop(index, key, id)
        return old

    def check(self) -> None:
        """Raise InternalError when an object is not what was put (only of a table made `checked`)."""
        if self._digests is not None:
            for id, obj in self._objects.items():
                self._check(id, obj)

    def _check(self, id: str, obj: T) -> None:
        if self._digests is not None and self._digests[id] != _digest(obj):
            raise InternalError(
                f"{self.schema.table} {id!r} was changed in place: objects of the store are read-only, copy them first"
            )

    def _drop(self, index: str, key: object, id: str) -> None:
        bucket = self._indexes[index].get(key)
        if bucket is not None:
            bucket.pop(id, None)
            if not bucket:
                del self._indexes[index][key]


def _digest(obj: Any) -> bytes:
    return blake2b(obj.SerializeToString(deterministic=True), digest_size=16).digest()
