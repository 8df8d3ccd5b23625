"""A transaction: an overlay on the tables that sees its own writes, remembers what it did, and can take it back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Cluster, Config, Extension, Network, Node, Resource, Secret, Service, Task, Volume
from swarmcore.api.store_pb2 import StoreChange
from swarmcore.errors import AlreadyExistsError, NotFoundError, SequenceConflictError
from swarmcore.store.changes import Change
from swarmcore.store.tables import Table, TableReader

T = TypeVar("T", bound=Any)


class Tables:
    """The tables by name, typed: what a view reads."""

    cluster: TableReader[Cluster]
    node: TableReader[Node]
    service: TableReader[Service]
    task: TableReader[Task]
    network: TableReader[Network]
    secret: TableReader[Secret]
    config: TableReader[Config]
    volume: TableReader[Volume]
    extension: TableReader[Extension]
    resource: TableReader[Resource]

    def table(self, name: str) -> TableReader[Any]:
        """A table by its name, for code that serves all kinds alike."""
        reader: TableReader[Any] = getattr(self, name)
        return reader


class WritableTable(Generic[T]):
    """One table inside a transaction. Takes ownership of what it is given: don't change it afterwards."""

    __slots__ = ("_base", "_hidden", "_overlay", "_transaction")

    def __init__(self, transaction: Transaction, base: Table[T]) -> None:
        self._transaction = transaction
        self._base = base
        self._overlay: Table[T] = Table(base.schema)
        self._hidden: set[str] = set()

    def get(self, id: str) -> T | None:
        if id in self._hidden:
            return self._overlay.get(id)
        return self._base.get(id)

    def all(self) -> Collection[T]:
        return self._merge(self._base.all(), self._overlay.all())

    def by(self, index: str, key: object) -> Collection[T]:
        return self._merge(self._base.by(index, key), self._overlay.by(index, key))

    def by_name(self, name: str) -> Collection[T]:
        return self.by("name", name.lower())

    def _merge(self, base: Collection[T], overlay: Collection[T]) -> Collection[T]:
        if not self._hidden:
            return base
        return [*(obj for obj in base if obj.id not in self._hidden), *overlay]

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.get(id) is not None

    def __len__(self) -> int:
        return len(self._base) - sum(1 for id in self._hidden if id in self._base) + len(self._overlay)

    def create(self, obj: T) -> None:
        """Insert; raises AlreadyExistsError when id or name is taken."""
        if self.get(obj.id) is not None:
            raise AlreadyExistsError(f"{self._base.schema.table} {obj.id!r} exists already")
        self._check_name(obj)
        stamp = self._transaction.stamp
        obj.meta.version.index = self._transaction.version
        obj.meta.created_at.CopyFrom(stamp)
        obj.meta.updated_at.CopyFrom(stamp)
        self._put(obj, None)

    def update(self, obj: T) -> None:
        """Replace; raises NotFoundError, AlreadyExistsError (name) and SequenceConflictError (version)."""
        old = self.get(obj.id)
        if old is None:
            raise NotFoundError(f"{self._base.schema.table} {obj.id!r} not found")
        if obj.meta.version.index != old.meta.version.index:
            raise SequenceConflictError
        schema = self._base.schema
        if schema.unique_name and schema.name(obj) != schema.name(old):
            self._check_name(obj)
        obj.meta.version.index = self._transaction.version
        obj.meta.updated_at.CopyFrom(self._transaction.stamp)
        self._put(obj, old)

    def delete(self, id: str) -> None:
        """Remove; raises NotFoundError."""
        old = self.get(id)
        if old is None:
            raise NotFoundError(f"{self._base.schema.table} {id!r} not found")
        self._transaction.record(self, id, old, None)
        self._overlay.remove(id)
        self._hidden.add(id)

    def _check_name(self, obj: T) -> None:
        schema = self._base.schema
        if not schema.unique_name:
            return
        name = schema.name(obj)
        if any(other.id != obj.id for other in self.by_name(name)):
            raise AlreadyExistsError(f"name conflicts with an existing object: {schema.table} {name!r} already exists")

    def _put(self, obj: T, old: T | None) -> None:
        self._transaction.record(self, obj.id, old, obj)
        self._overlay.put(obj)
        self._hidden.add(obj.id)

    def undo(self, id: str, old: T | None) -> None:
        """Take the last write of `id` back; `old` is what the transaction saw before it."""
        self._overlay.remove(id)
        if old is self._base.get(id):
            self._hidden.discard(id)
        elif old is not None:
            self._overlay.put(old)


class Transaction:
    """Many functions run one after another on this; each sees the earlier ones' writes, and fails alone."""

    def __init__(self, tables: dict[str, Table[Any]], version: int, stamp: Timestamp) -> None:
        self.version = version
        self.stamp = stamp
        self.bytes = 0
        """Size of what was written, in bytes on the log."""
        self._log: list[tuple[WritableTable[Any], str, str, Any | None, Any | None, bytes]] = []
        self.cluster: WritableTable[Cluster] = WritableTable(self, tables["cluster"])
        self.node: WritableTable[Node] = WritableTable(self, tables["node"])
        self.service: WritableTable[Service] = WritableTable(self, tables["service"])
        self.task: WritableTable[Task] = WritableTable(self, tables["task"])
        self.network: WritableTable[Network] = WritableTable(self, tables["network"])
        self.secret: WritableTable[Secret] = WritableTable(self, tables["secret"])
        self.config: WritableTable[Config] = WritableTable(self, tables["config"])
        self.volume: WritableTable[Volume] = WritableTable(self, tables["volume"])
        self.extension: WritableTable[Extension] = WritableTable(self, tables["extension"])
        self.resource: WritableTable[Resource] = WritableTable(self, tables["resource"])

    def table(self, name: str) -> WritableTable[Any]:
        """A table by its name, for code that serves all kinds alike."""
        writer: WritableTable[Any] = getattr(self, name)
        return writer

    def record(self, table: WritableTable[Any], id: str, old: Any | None, new: Any | None) -> None:
        """Called by the tables for each write, before it."""
        data = new.SerializeToString() if new is not None else b""
        self.bytes += len(data) + 64
        self._log.append((table, table._base.schema.table, id, old, new, data))

    @property
    def mark(self) -> int:
        """A point to `rollback` to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Take back every write since `mark`."""
        while len(self._log) > mark:
            table, _, id, old, _, data = self._log.pop()
            self.bytes -= len(data) + 64
            table.undo(id, old)

    def changes(self) -> tuple[Change, ...]:
        """What the whole transaction did, one change for each object, in order of the first write."""
        first: dict[tuple[str, str], Any | None] = {}
        last: dict[tuple[str, str], Any | None] = {}
        for _, name, id, old, new, _ in self._log:
            first.setdefault((name, id), old)
            last[name, id] = new
        return tuple(
            Change(name, first[name, id], new)
            for (name, id), new in last.items()
            if new is not None or first[name, id] is not None
        )

    def encode(self) -> list[StoreChange]:
        """What goes into the log, in the order written."""
        return [
            StoreChange(table=name, object=data)
            if new is not None
            else StoreChange(action=StoreChange.DELETE, table=name, id=id)
            for _, name, id, _, new, data in self._log
        ]


WriteFunction = Callable[[Transaction], T]
