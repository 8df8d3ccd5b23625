"""Which objects a List call returns: an index narrows, filters decide, in slices that leave the loop to others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from swarmcore.api.ids import ID_LENGTH
from swarmcore.store.tables import TableReader

T = TypeVar("T")

Predicate = Callable[[Any], bool]
Name = Callable[[Any], str]

SLICE_SECONDS = 0.005
CHECK_EVERY = 32


def spec_name(obj: Any) -> str:
    return str(obj.spec.annotations.name)


def own_name(obj: Any) -> str:
    return str(obj.annotations.name)


def labels_match(wanted: Mapping[str, str], actual: Mapping[str, str]) -> bool:
    """Every wanted key is there, with the wanted value unless that is empty."""
    return all(key in actual and (not value or actual[key] == value) for key, value in wanted.items())


def common_predicates(filters: Any, name: Name, labels: Callable[[Any], Mapping[str, str]]) -> list[Predicate]:
    """The filters that every kind has: names, id prefixes, name prefixes, labels. Each that is given must hold."""
    predicates: list[Predicate] = []
    if filters.names:
        names = frozenset(filters.names)
        predicates.append(lambda obj: name(obj) in names)
    if filters.id_prefixes:
        ids = tuple(filters.id_prefixes)
        predicates.append(lambda obj: obj.id.startswith(ids))
    if filters.name_prefixes:
        prefixes = tuple(prefix.lower() for prefix in filters.name_prefixes)
        predicates.append(lambda obj: name(obj).lower().startswith(prefixes))
    if filters.labels:
        wanted = dict(filters.labels)
        predicates.append(lambda obj: labels_match(wanted, labels(obj)))
    return predicates


def any_name_predicates(filters: Any, name: Name, labels: Callable[[Any], Mapping[str, str]]) -> list[Predicate]:
    """As for secrets, configs and resources: one of names, name prefixes and id prefixes, and the labels."""
    predicates: list[Predicate] = []
    if filters.names or filters.name_prefixes or filters.id_prefixes:
        names = frozenset(filters.names)
        prefixes = tuple(prefix.lower() for prefix in filters.name_prefixes)
        ids = tuple(filters.id_prefixes)
        predicates.append(
            lambda obj: name(obj) in names or name(obj).lower().startswith(prefixes) or obj.id.startswith(ids)
        )
    if filters.labels:
        wanted = dict(filters.labels)
        predicates.append(lambda obj: labels_match(wanted, labels(obj)))
    return predicates


def indexed(table: TableReader[T], index: str, keys: Iterable[str]) -> list[T]:
    """Objects under any of `keys`, each once."""
    found: dict[str, T] = {}
    for key in dict.fromkeys(keys):
        for obj in table.by_name(key) if index == "name" else table.by(index, key):
            found[obj.id] = obj  # type: ignore[attr-defined]
    return list(found.values())


def candidates(table: TableReader[T], filters: Any) -> Collection[T]:
    """What can match at all: by name or whole id where they are given, else everything."""
    if filters.names:
        return indexed(table, "name", filters.names)
    return by_whole_ids(table, filters.id_prefixes) or table.all()


def by_whole_ids(table: TableReader[T], prefixes: Collection[str]) -> list[T]:
    """The objects of these ids when each is a whole one; nothing when any may be a prefix of several."""
    found = [table.get(prefix) if len(prefix) == ID_LENGTH else None for prefix in dict.fromkeys(prefixes)]
    whole = [obj for obj in found if obj is not None]
    return whole if len(whole) == len(found) else []


async def matching(objects: Collection[T], predicates: Sequence[Predicate]) -> list[T]:
    """The objects for which every predicate holds. Works on the state at the call, whatever is applied meanwhile."""
    frozen = list(objects)
    if not predicates:
        return frozen
    found: list[T] = []
    started = time.perf_counter()
    for position, obj in enumerate(frozen, start=1):
        for predicate in predicates:
            if not predicate(obj):
                break
        else:
            found.append(obj)
        if position % CHECK_EVERY == 0 and time.perf_counter() - started > SLICE_SECONDS:
            await asyncio.sleep(0)
            started = time.perf_counter()
    return found


async def fill(repeated: Any, objects: Sequence[Any], shown: Callable[[Any], Any] | None = None) -> None:
    """Copy objects into a repeated field, slice by slice.

    A list may be longer than gRPC's default of 4 MiB for what a client takes: clients of the control socket, SwarmKit's
    among them, raise that limit, as they always had to.
    """
    started = time.perf_counter()
    for start in range(0, len(objects), CHECK_EVERY):
        chunk = objects[start : start + CHECK_EVERY]
        repeated.extend(chunk if shown is None else [shown(obj) for obj in chunk])
        if time.perf_counter() - started > SLICE_SECONDS:
            await asyncio.sleep(0)
            started = time.perf_counter()
