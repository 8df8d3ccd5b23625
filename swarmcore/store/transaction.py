"""A transaction: an overlay on the tables that sees its own writes, remembers what it did, and can take it back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Cluster, Config, Extension, Network, Node, Resource, Secret, Service, Task, Volume
from swarmcore.api.store_pb2 import StoreChange
from swarmcore.api.store_pb2 import Transaction as Entry
from swarmcore.errors import AlreadyExistsError, InternalError, NotFoundError, SequenceConflictError
from swarmcore.store.changes import Change, StatusChange
from swarmcore.store.tables import Table, TableReader

T = TypeVar("T", bound=Any)

_CHANGE_BYTES = 64
"""What a change adds to the size of its object, at most."""


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


_ABSENT: Any = object()


class WritableTable(Generic[T]):
    """One table inside a transaction. Takes ownership of what it is given: don't change it afterwards."""

    __slots__ = ("_base", "_get_base", "_index", "_transaction", "_written")

    def __init__(self, transaction: Transaction, base: Table[T]) -> None:
        self._transaction = transaction
        self._base = base
        self._get_base = base.lookup
        self._written: dict[str, T | None] = {}
        """What the transaction wrote so far, by id; None where it deleted."""
        self._index: Table[T] | None = None
        """The same objects with their index entries, made when somebody first asks by index."""

    @property
    def name(self) -> str:
        return self._base.schema.table

    @property
    def touched(self) -> int:
        """How many objects were written."""
        return len(self._written)

    def get(self, id: str) -> T | None:
        obj = self._written.get(id, _ABSENT)
        return self._get_base(id) if obj is _ABSENT else obj

    def all(self) -> Collection[T]:
        if not self._written:
            return self._base.all()
        return self._merge(self._base.all(), (obj for obj in self._written.values() if obj is not None))

    def by(self, index: str, key: object) -> Collection[T]:
        if not self._written:
            return self._base.by(index, key)
        if self._index is None:
            self._index = Table(self._base.schema)
            for obj in self._written.values():
                if obj is not None:
                    self._index.put(obj)
        return self._merge(self._base.by(index, key), self._index.by(index, key))

    def by_name(self, name: str) -> Collection[T]:
        return self.by("name", name.lower())

    def _merge(self, base: Iterable[T], written: Iterable[T]) -> Collection[T]:
        hidden = self._written
        return [*(obj for obj in base if obj.id not in hidden), *written]

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.get(id) is not None

    def __len__(self) -> int:
        return len(self._base) + sum((obj is not None) - (id in self._base) for id, obj in self._written.items())

    def create(self, obj: T) -> None:
        """Insert; raises AlreadyExistsError when id or name is taken."""
        if self.get(obj.id) is not None:
            raise AlreadyExistsError(f"{self._base.schema.table} {obj.id!r} exists already")
        self._check_name(obj)
        transaction = self._transaction
        meta = obj.meta
        meta.version.index = transaction.version
        meta.created_at.CopyFrom(transaction.stamp)
        meta.updated_at.CopyFrom(transaction.stamp)
        self._put(obj, None)

    def update(self, obj: T) -> None:
        """Replace; raises NotFoundError, AlreadyExistsError (name) and SequenceConflictError (version)."""
        self._update(obj, is_status=False)

    def update_status(self, obj: T) -> None:
        """Replace an object by one that differs in status and meta alone. Raises as `update` does."""
        self._update(obj, is_status=True)

    def _update(self, obj: T, *, is_status: bool) -> None:
        id = obj.id
        old = self.get(id)
        if old is None:
            raise NotFoundError(f"{self._base.schema.table} {id!r} not found")
        if obj is old:
            raise InternalError(f"{self.name} {id!r} is read-only, as it is in the store: copy it, then update")
        meta = obj.meta
        version = meta.version
        if version.index != old.meta.version.index:
            raise SequenceConflictError
        schema = self._base.schema
        if schema.unique_name and not is_status and schema.name(obj) != schema.name(old):
            self._check_name(obj)
        version.index = self._transaction.version
        meta.updated_at.CopyFrom(self._transaction.stamp)
        self._transaction.record(self, id, old, obj, is_status)
        self._write(id, obj)

    def delete(self, id: str) -> None:
        """Remove; raises NotFoundError."""
        old = self.get(id)
        if old is None:
            raise NotFoundError(f"{self._base.schema.table} {id!r} not found")
        self._transaction.record(self, id, old, None)
        self._write(id, None)

    def _check_name(self, obj: T) -> None:
        schema = self._base.schema
        if not schema.unique_name:
            return
        name = schema.name(obj)
        if any(other.id != obj.id for other in self.by_name(name)):
            raise AlreadyExistsError(f"name conflicts with an existing object: {schema.table} {name!r} already exists")

    def _put(self, obj: T, old: T | None) -> None:
        id = obj.id
        self._transaction.record(self, id, old, obj)
        self._write(id, obj)

    def _write(self, id: str, obj: T | None) -> None:
        self._written[id] = obj
        if self._index is not None:
            if obj is None:
                self._index.remove(id)
            else:
                self._index.put(obj)

    def undo(self, id: str, old: T | None) -> None:
        """Take the last write of `id` back; `old` is what the transaction saw before it."""
        if old is self._base.get(id):
            del self._written[id]
            if self._index is not None:
                self._index.remove(id)
        else:
            self._write(id, old)

    def redo(self, id: str, old: T | None, new: T | None, is_status: bool) -> None:
        """Do a write again that `Transaction.split` took out of the transaction before this one."""
        if new is not None:
            new.meta.version.index = self._transaction.version
        self._transaction.record(self, id, old, new, is_status)
        self._write(id, new)


class Write(NamedTuple):
    """One write of a transaction, in the order made."""

    table: str
    id: str
    old: Any | None
    new: Any | None
    data: bytes
    """`new`, serialised."""
    is_status: bool
    """Nothing but status and meta differs."""


class Transaction:
    """Many functions run one after another on this; each sees the earlier ones' writes, and fails alone."""

    def __init__(self, tables: dict[str, Table[Any]], version: int, stamp: Timestamp) -> None:
        self.version = version
        self.stamp = stamp
        self.bytes = 0
        """Size of what was written, in bytes on the log."""
        self._log: list[Write] = []
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

    def record(
        self, table: WritableTable[Any], id: str, old: Any | None, new: Any | None, is_status: bool = False
    ) -> None:
        """Called by the tables for each write, before it."""
        data = new.SerializeToString() if new is not None else b""
        self.bytes += len(data) + _CHANGE_BYTES
        self._log.append(Write(table.name, id, old, new, data, is_status))

    @property
    def mark(self) -> int:
        """A point to `rollback` to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Take back every write since `mark`."""
        while len(self._log) > mark:
            write = self._log.pop()
            self.bytes -= len(write.data) + _CHANGE_BYTES
            self.table(write.table).undo(write.id, write.old)

    def split(self, mark: int) -> list[Write]:
        """Take back every write since `mark`, to be made by the next transaction (`resume`)."""
        rest = self._log[mark:]
        self.rollback(mark)
        return rest

    def resume(self, writes: Iterable[Write]) -> None:
        """Begin with what was split off the transaction that was applied just before."""
        for name, id, old, new, _, is_status in writes:
            self.table(name).redo(id, old, new, is_status)

    def outcome(self) -> tuple[tuple[Change, ...], bytes]:
        """What the whole transaction did, one change for each object, and the same as the data of a log entry.

        Both say the same in the same order, so that a manager which replays the entry gets equal tables.
        """
        entry = Entry()
        add = entry.changes.add
        changes: list[Change] = []
        for name, id, old, new, data, is_status in self._effects():
            if new is not None:
                add(table=name, object=data)
                changes.append(StatusChange(name, old, new) if is_status else Change(name, old, new))
            elif old is not None:
                add(action=StoreChange.DELETE, table=name, id=id)
                changes.append(Change(name, old, None))
        return tuple(changes), entry.SerializeToString()

    def _effects(self) -> Iterable[Write]:
        """What remains of the writes: one for each object, in the order of the first ones."""
        if len(self._log) == sum(self.table(name).touched for name in {write.table for write in self._log}):
            return self._log
        merged: dict[tuple[str, str], Write] = {}
        for write in self._log:
            key = (write.table, write.id)
            before = merged.get(key)
            if before is not None:
                write = write._replace(old=before.old, is_status=before.is_status and write.is_status)
            merged[key] = write
        return merged.values()
