"""What a watcher asked for, made into one function for each kind of object (SwarmKit: 11.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swarmcore.api.types_pb2 import IndexEntry
from swarmcore.api.watch_pb2 import SelectBy, SelectByCustom, WatchActionKind, WatchRequest
from swarmcore.controlapi.tasks import task_name
from swarmcore.controlapi.validate.bounds import brief
from swarmcore.errors import InvalidArgumentError
from swarmcore.store.tables import SCHEMA_OF

CREATE: int = WatchActionKind.WATCH_ACTION_CREATE
UPDATE: int = WatchActionKind.WATCH_ACTION_UPDATE
REMOVE: int = WatchActionKind.WATCH_ACTION_REMOVE
EVERY_ACTION = CREATE | UPDATE | REMOVE
MAX_ENTRIES = 100
MAX_FILTERS = 32
"""Of one entry: each kind of filter at most once."""

Check = Callable[[Any], bool]

_COMMON = frozenset({"id", "id_prefix", "name", "name_prefix", "custom", "custom_prefix"})
_ALLOWED: Mapping[str, frozenset[str]] = {
    "node": _COMMON | {"role", "membership"},
    "task": _COMMON | {"service_id", "node_id", "slot", "desired_state"},
    "resource": _COMMON | {"kind"},
}


@dataclass(frozen=True, slots=True)
class Selector:
    """One entry of a watch: which actions on which objects of one table."""

    actions: int
    checks: tuple[Check, ...]

    def accepts(self, action: int, obj: Any) -> bool:
        return bool(self.actions & action) and all(check(obj) for check in self.checks)


@dataclass(frozen=True, slots=True)
class Selection:
    """All entries of a watch."""

    by_table: Mapping[str, tuple[Selector, ...]] = field(default_factory=dict)

    def accepts(self, table: str, action: int, obj: Any) -> bool:
        """Whether one of the entries asks for this event; `obj` is the new object, or the removed one."""
        return any(selector.accepts(action, obj) for selector in self.by_table.get(table, ()))


def selection(entries: Iterable[WatchRequest.WatchEntry]) -> Selection:
    """Read the entries; raises InvalidArgumentError with the position of the one that is wrong."""
    by_table: dict[str, tuple[Selector, ...]] = {}
    for position, entry in enumerate(entries):
        if position >= MAX_ENTRIES:
            raise InvalidArgumentError(f"entries has more than {MAX_ENTRIES} entries: start several watches")
        where = f"entries[{position}]"
        if not entry.kind:
            raise InvalidArgumentError(f"no kind of object specified: {where}.kind is empty")
        if not entry.action or entry.action & ~EVERY_ACTION:
            raise InvalidArgumentError(
                f"no action specified: {where}.action must be a sum of 1 (create), 2 (update) and 4 (remove)"
            )
        # Any name that is no table's is the kind of a resource.
        is_table = entry.kind in SCHEMA_OF and entry.kind != "resource"
        table = entry.kind if is_table else "resource"
        checks = _checks(entry, table, where)
        if not is_table:
            checks.append(_equals(lambda resource: resource.kind, entry.kind))
        by_table[table] = (*by_table.get(table, ()), Selector(entry.action, tuple(checks)))
    if not by_table:
        raise InvalidArgumentError("entries is empty: name a kind of object to watch")
    return Selection(by_table)


def _checks(entry: WatchRequest.WatchEntry, table: str, where: str) -> list[Check]:
    if len(entry.filters) > MAX_FILTERS:
        raise InvalidArgumentError(f"conflicting filters specified: {where}.filters has too many")
    allowed = _ALLOWED.get(table, _COMMON)
    seen: set[str] = set()
    checks = []
    for position, select in enumerate(entry.filters):
        by = select.WhichOneof("By")
        place = f"{where}.filters[{position}]"
        if by is None or by not in allowed:
            raise InvalidArgumentError(f"unrecognized selector: {place} {by or 'is empty'}: {table}s don't have it")
        if by in seen:
            raise InvalidArgumentError(f"conflicting filters specified: {place} gives {by} a second time")
        seen.add(by)
        checks.append(_check(select, by, table, place))
    return checks


def _check(select: SelectBy, by: str, table: str, place: str) -> Check:
    name = _name_of(table)
    match by:
        case "id_prefix":
            return _starts_with(lambda obj: obj.id, select.id_prefix)
        case "name":
            return _equals(name, select.name)
        case "name_prefix":
            return _starts_with(name, select.name_prefix)
        case "custom":
            return _custom(select.custom, table, place, is_prefix=False)
        case "custom_prefix":
            return _custom(select.custom_prefix, table, place, is_prefix=True)
        case "slot":
            wanted = (select.slot.service_id, select.slot.slot)
            return lambda task: (task.service_id, task.slot) == wanted
        case "role":
            return _equals(lambda node: node.role, select.role)
        case "membership":
            return _equals(lambda node: node.spec.membership, select.membership)
        case _:
            # `id`, and what is called the same in the object: service_id, node_id, desired_state, kind.
            return _equals(lambda obj: getattr(obj, by), getattr(select, by))


def _name_of(table: str) -> Callable[[Any], str]:
    return task_name if table == "task" else SCHEMA_OF[table].name


def _equals(value: Callable[[Any], object], wanted: object) -> Check:
    return lambda obj: value(obj) == wanted


def _starts_with(value: Callable[[Any], str], prefix: str) -> Check:
    return lambda obj: value(obj).startswith(prefix)


def _custom(select: SelectByCustom, table: str, place: str, *, is_prefix: bool) -> Check:
    """By an entry of the object's `indices`; `kind` narrows resources."""
    if table != "resource" and select.kind and select.kind != table:
        raise InvalidArgumentError(f"unrecognized selector: {place}.kind {brief(select.kind)!r} is no kind of {table}")
    key, value, kind = select.index, select.value, select.kind

    def matches(entry: IndexEntry) -> bool:
        return entry.key == key and (entry.val.startswith(value) if is_prefix else entry.val == value)

    def check(obj: Any) -> bool:
        annotations = obj.annotations if table in ("task", "resource", "extension") else obj.spec.annotations
        if table == "resource" and kind and obj.kind != kind:
            return False
        return any(matches(entry) for entry in annotations.indices)

    return check
