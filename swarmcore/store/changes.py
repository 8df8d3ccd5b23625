"""What happened: applied transactions, delivered to subscribers in order, with an explicit resync instead of a gap."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

DEFAULT_CAPACITY = 200_000
"""Changes that wait for one subscriber before it is told to resync."""


class Change(NamedTuple):
    """One object of one transaction: created (no `old`), deleted (no `new`) or updated. Both are read-only."""

    table: str
    old: Any | None
    new: Any | None

    @property
    def id(self) -> str:
        return str((self.new if self.new is not None else self.old).id)  # type: ignore[union-attr]


class StatusChange(Change):
    """An update in which nothing but status and meta differs, as its writer said; an update may also be a `Change`
    although it does no more. Nearly all changes of a big cluster are of this kind: followers can pass over them."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """One applied transaction."""

    version: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Resync:
    """Changes were lost for this subscriber (it was slow, or a snapshot was restored): read the view again."""

    version: int


class Subscription:
    """A bounded queue of commits for one consumer.

    Subscribe, then read the view, without an `await` between: nothing is missed and nothing comes twice.
    """

    def __init__(
        self, close: Callable[[Subscription], None], tables: frozenset[str] | None, capacity: int = DEFAULT_CAPACITY
    ) -> None:
        self._close = close
        self._tables = tables
        self._capacity = capacity
        self._queue: deque[Commit | Resync] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()

    @property
    def tables(self) -> frozenset[str] | None:
        """What it follows; None is everything."""
        return self._tables

    def offer(self, commit: Commit | Resync) -> None:
        """Called by the store for each applied transaction, with the changes of the tables followed."""
        if isinstance(commit, Commit):
            self._waiting += len(commit.changes)
            if self._waiting > self._capacity:
                commit = Resync(commit.version)
        if isinstance(commit, Resync):
            self._queue.clear()
            self._waiting = 0
        self._queue.append(commit)
        self._wake.set()

    async def get(self) -> Commit | Resync:
        """The next commit, waiting for it."""
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        return self._pop()

    def drain(self) -> list[Commit | Resync]:
        """Everything that waits now."""
        commits = list(self._queue)
        self._queue.clear()
        self._waiting = 0
        return commits

    def _pop(self) -> Commit | Resync:
        commit = self._queue.popleft()
        if isinstance(commit, Commit):
            self._waiting -= len(commit.changes)
        return commit

    def close(self) -> None:
        self._close(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[Commit | Resync]:
        while True:
            yield await self.get()


class Publisher:
    """All subscriptions of one store."""

    def __init__(self) -> None:
        self._subscriptions: dict[int, Subscription] = {}

    def subscribe(self, tables: Iterable[str] | None, capacity: int) -> Subscription:
        subscription = Subscription(self._forget, None if tables is None else frozenset(tables), capacity)
        self._subscriptions[id(subscription)] = subscription
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.pop(id(subscription), None)

    def publish(self, commit: Commit | Resync) -> None:
        parts: dict[frozenset[str], Commit | None] = {}
        present = {change.table for change in commit.changes} if isinstance(commit, Commit) else ()
        for subscription in list(self._subscriptions.values()):
            tables = subscription.tables
            if tables is None or isinstance(commit, Resync):
                subscription.offer(commit)
                continue
            if tables not in parts:
                parts[tables] = _part(commit, tables, present)
            part = parts[tables]
            if part is not None:
                subscription.offer(part)


def _part(commit: Commit, tables: frozenset[str], present: Collection[str]) -> Commit | None:
    """What a commit says of some tables; `present` are those that it says something of."""
    if tables.issuperset(present):
        return commit
    if tables.isdisjoint(present):
        return None
    return Commit(commit.version, tuple([change for change in commit.changes if change.table in tables]))
