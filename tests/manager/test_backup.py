"""What the Backup service gives out, to whom, and when it doesn't."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from swarmcore.api.backup_pb2 import BackupPart, BackupRequest
from swarmcore.api.caller import Caller, set_caller
from swarmcore.api.objects_pb2 import Cluster
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.errors import (
    FailedPreconditionError,
    PermissionDeniedError,
    ResourceExhaustedError,
    SwarmError,
    UnavailableError,
)
from swarmcore.manager import backup
from swarmcore.manager.backup import BackupService
from swarmcore.raft.membership import Membership
from swarmcore.raft.types import SnapshotMeta
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.store import running_store

LOCAL = Caller(node_id="m1", role=NodeRole.MANAGER, is_local=True)


class Replica:
    def __init__(self) -> None:
        self.barrier: Callable[[], Any] = lambda: None

    async def read_barrier(self) -> None:
        result = self.barrier()
        if result is not None:
            await result

    def applied_point(self) -> SnapshotMeta:
        return SnapshotMeta(index=7, term=2, membership=Membership.single("m1", "a:1"))


class Context:
    """Takes what is written, or hangs."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.parts: list[BackupPart] = []
        self._hangs = hangs

    async def write(self, part: BackupPart) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        self.parts.append(part)


async def stored(store: Store, *, key: bytes = b"root key", unlock_key: bytes = b"") -> None:
    def write(tx: Transaction) -> None:
        cluster = Cluster(id="c1")
        cluster.spec.annotations.name = "default"
        cluster.root_ca.ca_cert, cluster.root_ca.ca_key = b"root", key
        if unlock_key:
            cluster.unlock_keys.add(subsystem=MANAGER_SUBSYSTEM, key=unlock_key)
        tx.cluster.create(cluster)

    await store.update(write)


def service(store: Store, replica: Replica | None = None) -> BackupService:
    return BackupService(store, replica or Replica(), "c1", time.time)


async def take(asked: BackupService, *, without_leader: bool = False, caller: Caller = LOCAL) -> list[BackupPart]:
    set_caller(caller)
    context: Any = Context()
    await asked.Take(BackupRequest(without_leader=without_leader), context)
    return list(context.parts)


async def test_it_is_the_store_as_of_one_entry_with_what_a_restore_needs() -> None:
    async with running_store(time.time) as store:
        await stored(store, unlock_key=b"unlock")

        first, *pieces, last = await take(service(store))

        header = first.header
        assert (header.index, header.term, header.cluster_id, header.is_confirmed) == (7, 2, "c1", True)
        assert (header.root_certificate, header.root_key, header.unlock_key) == (b"root", b"root key", b"unlock")
        assert Membership.decode(header.membership).voters == (1,)
        assert [part.piece for part in pieces] == list(store.snapshot())
        assert last.end == len(pieces)


async def test_it_is_for_this_machines_root_alone() -> None:
    async with running_store(time.time) as store:
        await stored(store)
        with pytest.raises(PermissionDeniedError, match="on a manager's own control socket"):
            await take(service(store), caller=Caller(node_id="m2", role=NodeRole.MANAGER))


async def test_without_a_leader_it_has_to_be_asked_for() -> None:
    replica = Replica()

    def refuse() -> None:
        raise UnavailableError("no leader could confirm the read: ask again")

    replica.barrier = refuse
    async with running_store(time.time) as store:
        await stored(store)
        with pytest.raises(UnavailableError, match="--without-leader"):
            await take(service(store, replica))
        assert not (await take(service(store, replica), without_leader=True))[0].header.is_confirmed


async def test_a_leader_that_does_not_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "CONFIRM_SECONDS", 0.01)
    replica = Replica()
    replica.barrier = lambda: asyncio.Event().wait()
    async with running_store(time.time) as store:
        await stored(store)
        with pytest.raises(UnavailableError, match="--without-leader"):
            await take(service(store, replica))


async def test_a_reader_that_does_not_read_is_given_up_and_only_two_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_store(time.time) as store:
        await stored(store)
        asked = service(store)

        async def hang() -> None:
            set_caller(LOCAL)
            context: Any = Context(hangs=True)
            await asked.Take(BackupRequest(), context)

        hanging = [asyncio.create_task(hang()) for _ in range(backup.MAX_AT_ONCE)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhaustedError, match="wait for one of them"):
            await take(asked)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        monkeypatch.setattr(backup, "PART_SECONDS", 0.01)
        with pytest.raises(SwarmError, match="is not read any more"):
            await hang()

        assert await take(asked)


async def test_without_the_roots_key_there_is_nothing_to_restore_from() -> None:
    async with running_store(time.time) as store:
        await stored(store, key=b"")
        with pytest.raises(FailedPreconditionError, match="root CA's key is not kept"):
            await take(service(store))
