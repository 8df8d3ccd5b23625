"""Clients: they append to lists and read them, at any member, and a leader's own part writes with its term."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from typing import TYPE_CHECKING, Any

from swarmcore.api.objects_pb2 import Config
from swarmcore.errors import ResourceExhaustedError, SwarmError
from swarmcore.store.store import Store, View
from swarmcore.store.transaction import Transaction
from swarmcore.testing.simulation.history import Operation, Outcome
from swarmcore.testing.simulation.invariants import FENCE

if TYPE_CHECKING:
    from swarmcore.testing.simulation.group import Group
    from swarmcore.testing.simulation.member import Member

KEYS = ("x", "y")
_PAUSE_SECONDS = 0.1
_PADDING = b" " * 60


class Clients:
    """Their operations are tasks of their own: one that never ends stops nobody."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._chance = group.split_chance()
        self._values = count(1)
        self._places = count(1)
        self.operations: list[Operation] = []
        self._tasks: set[asyncio.Task[bool]] = set()

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        chance = self._chance
        while True:
            await asyncio.sleep(_PAUSE_SECONDS * chance.random() * 2)
            member = self._choose()
            if member is None:
                continue
            for _ in range(chance.choice((1, 1, 1, 1, 6))):
                match chance.randrange(8):
                    case 0 | 1 | 2 | 3:
                        self._begin(self.append(member, chance.choice(KEYS)))
                    case 4 | 5:
                        self._begin(self.read(self._choose(leading=0.3) or member, chance.choice(KEYS)))
                    case 6:
                        self._begin(self._fence(member))
                    case 7:
                        self._look(self._choose(leading=0.0) or member, chance.choice(KEYS))

    def _choose(self, leading: float = 0.8) -> Member | None:
        up = [member for member in self._group.members.values() if member.is_up]
        leaders = [member for member in up if member.replica is not None and member.replica.term]
        if leaders and self._chance.random() < leading:
            return self._chance.choice(leaders)
        return self._chance.choice(up) if up else None

    def _begin(self, operation: Coroutine[Any, Any, bool]) -> None:
        task = asyncio.create_task(operation)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def maybe_ask_new_leader(self, member: Member) -> None:
        """Read at a member in the very step in which it begins to lead: it does not know yet what is committed."""
        if self._chance.random() < 0.3:
            self._begin(self.read(member, self._chance.choice(KEYS)))

    # Operations

    async def append(self, member: Member, key: str) -> bool:
        """Append a value of its own; whether that was acknowledged."""
        value = next(self._values)
        operation = self._invoke(key, value)
        store = member.store
        assert store is not None
        return await self._end(operation, member, lambda: store.update(lambda tx: _append(tx, key, value)))

    async def read(self, member: Member, key: str) -> bool:
        """Read what is there now, linearizably."""
        operation = self._invoke(key, None)
        replica, store = member.replica, member.store
        assert replica is not None and store is not None

        async def read() -> tuple[int, ...]:
            await replica.read_barrier()
            return values(store.view, key)

        return await self._end(operation, member, read)

    async def _end(self, operation: Operation, member: Member, do: Callable[[], Awaitable[tuple[int, ...]]]) -> bool:
        process = member.process
        try:
            result = await do()
        except ResourceExhaustedError:
            if process is not None and process.is_alive:
                operation.outcome = Outcome.REFUSED
            return False
        except SwarmError:
            return False
        if process is None or not process.is_alive:
            return False  # the answer never left the machine
        operation.result, operation.outcome = result, Outcome.DONE
        operation.returned = next(self._places)
        self._group.note("client: %s of %s at %s gives %s", operation.value or "read", operation.key, member, result)
        return True

    def _invoke(self, key: str, value: int | None) -> Operation:
        operation = Operation(key=key, value=value, invoked=next(self._places))
        self.operations.append(operation)
        return operation

    async def _fence(self, member: Member) -> bool:
        """Write as a part of the leader does, with the term in which it began, which may be long over."""
        replica, store = member.replica, member.store
        if replica is None or store is None or not replica.term:
            return False
        writer = store.writer(replica.term)
        for _ in range(4):
            try:
                await writer.update(lambda tx: _fence(tx, f"{member}", writer.term))
            except SwarmError:
                pass
            await asyncio.sleep(self._chance.random())
        return True

    def _look(self, member: Member, key: str) -> None:
        """Read what a member has, which may be old but never wrong. Checked with the rest at the end."""
        if member.store is not None:
            self._group.looks.append((key, values(member.store.view, key)))


def values(view: View, key: str) -> tuple[int, ...]:
    """The list `key`, as it is in a store."""
    config = view.config.get(key)
    return () if config is None else _decode(config)


def _decode(config: Config) -> tuple[int, ...]:
    return tuple(int(value) for value in config.spec.data.split())


def _append(tx: Transaction, key: str, value: int) -> tuple[int, ...]:
    old = tx.config.get(key)
    new = Config(id=key)
    if old is not None:
        new.CopyFrom(old)
    new.spec.annotations.name = key
    new.spec.data = (new.spec.data.rstrip() + b" %d" % value) + _PADDING
    if old is None:
        tx.config.create(new)
    else:
        tx.config.update(new)
    return _decode(new)


def _fence(tx: Transaction, id: str, term: int) -> None:
    if tx.config.get(id) is not None:
        # Sometimes gone, so that a state which kept what another one deleted is found.
        tx.config.delete(id)
        id += "'"
    if tx.config.get(id) is None:
        new = Config(id=id)
        new.spec.annotations.name = id
        new.spec.data = FENCE + b"%d;" % term
        tx.config.create(new)
    else:
        tx.config.delete(id)


def final_lists(store: Store) -> dict[str, tuple[int, ...]]:
    """Every list, at the end."""
    return {key: values(store.view, key) for key in KEYS}
