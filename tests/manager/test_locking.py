"""What a manager has on its disk follows the cluster's unlock key."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from swarmcore.api.objects_pb2 import Cluster
from swarmcore.api.types_pb2 import EncryptionKey
from swarmcore.ca.security import Material, SecurityConfig
from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.errors import ResourceExhaustedError, UnavailableError
from swarmcore.manager.bootstrap import Founder, new_cluster
from swarmcore.manager.locking import RETRY_SECONDS, Locking
from swarmcore.replication.keys import KeyRing
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.store import running_store

R = TypeVar("R")


class Log:
    """A ring of keys on a disk that may be full, and a log that may be behind."""

    def __init__(self, folder: Path, unlock_key: bytes | None = None) -> None:
        self.path = folder / "keys.json"
        self.keys = KeyRing.create(self.path, unlock_key)
        self.is_full = False
        self.leaderless = False
        self.barriers = 0

    async def change_keys(self, change: Callable[[KeyRing], R]) -> R:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return change(self.keys)

    async def rotate_keys(self) -> None:
        if self.is_full:
            raise ResourceExhaustedError("the disk is full")
        self.keys.rotate()

    async def read_barrier(self) -> None:
        self.barriers += 1
        if self.leaderless:
            raise UnavailableError("no leader could confirm the read: ask again")

    def opens_with(self, unlock_key: bytes | None) -> bool:
        """Whether a manager that is killed now can be started again with this."""
        try:
            KeyRing.open(self.path, unlock_key)
        except Exception:  # noqa: BLE001 - any reason is one
            return False
        return True


class Certificate:
    """A private key that is replaced when a test says so."""

    cluster_id = "c"

    def __init__(self, material: Material) -> None:
        self.material = material
        self.serial = 0
        self.sealed: list[bytes] = []
        self.wanted = 0
        self._changed = asyncio.Event()

    async def wait_change(self, known: int) -> int:
        while self.serial == known:
            await self._changed.wait()
        return self.serial

    def seal_key(self, secret: bytes) -> None:
        self.sealed.append(secret)

    def want_new_key(self) -> None:
        self.wanted += 1

    def renew(self) -> None:
        self.material = replace(self.material, key_pem=self.material.key_pem + b"\n")
        self.serial += 1
        self._changed.set()


def write(key: bytes | None) -> Callable[[Transaction], None]:
    def change(tx: Transaction) -> None:
        old = tx.cluster.get("c")
        cluster = Cluster(id="c")
        if key is not None:
            cluster.unlock_keys.append(EncryptionKey(subsystem=MANAGER_SUBSYSTEM, key=key))
        if old is None:
            tx.cluster.create(cluster)
        else:
            cluster.meta.CopyFrom(old.meta)
            tx.cluster.update(cluster)

    return change


class Manager:
    def __init__(self, store: Store, log: Log, certificate: Certificate, clock: SimulatedClock) -> None:
        self.store = store
        self.log = log
        self.certificate = certificate
        self.clock = clock

    async def agree(self, key: bytes | None) -> None:
        await self.store.update(write(key))
        await let_the_loop_run()


@contextlib.asynccontextmanager
async def running(folder: Path, log: Log, *, agreed: bytes | None = None) -> AsyncIterator[Manager]:
    clock = SimulatedClock()
    certificate = Certificate(SecurityConfig.create_cluster(folder / "certificates", clock).material)
    async with running_store() as store:
        await store.update(write(agreed))
        work = asyncio.create_task(Locking(store, log, certificate, clock).run())
        await let_the_loop_run()
        try:
            yield Manager(store, log, certificate, clock)
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work


async def test_the_disk_is_locked_anew_whenever_the_key_changes(tmp_path: Path) -> None:
    log = Log(tmp_path)
    async with running(tmp_path, log) as manager:
        assert log.opens_with(None)
        for key in (b"first", b"second", None, b"third"):
            await manager.agree(key)
            assert log.opens_with(key)
            assert not log.opens_with(b"another") or key is None


async def test_a_log_that_is_behind_locks_the_disk_with_no_key_of_the_past(tmp_path: Path) -> None:
    """A follower that was away for two rotations: the one in between would be needed by nobody but itself."""
    log = Log(tmp_path, b"first")
    async with running(tmp_path, log, agreed=b"first") as manager:
        log.leaderless = True
        await manager.agree(b"second")
        assert log.opens_with(b"first")

        await manager.agree(b"third")
        log.leaderless = False
        await manager.clock.advance(RETRY_SECONDS)
        assert log.opens_with(b"third")


async def test_what_the_disk_refuses_is_tried_again(tmp_path: Path) -> None:
    log = Log(tmp_path, b"first")
    async with running(tmp_path, log, agreed=b"first") as manager:
        log.is_full = True
        await manager.agree(b"second")
        await manager.clock.advance(3 * RETRY_SECONDS)
        assert log.opens_with(b"first")

        log.is_full = False
        await manager.clock.advance(RETRY_SECONDS)
        assert log.opens_with(b"second")


async def test_data_keys_that_stood_on_the_disk_in_the_open_are_not_used_once_it_is_locked(tmp_path: Path) -> None:
    log = Log(tmp_path)
    async with running(tmp_path, log) as manager:
        used = []
        for key in (None, b"first", b"second", None, b"third", b"fourth"):
            await manager.agree(key)
            used.append(log.keys.current)

    assert used == [1, 2, 2, 2, 3, 3]


async def test_the_private_key_is_replaced_once_when_it_is_locked_for_the_first_time(tmp_path: Path) -> None:
    log = Log(tmp_path)
    (readable,) = log.keys.identity_keys
    async with running(tmp_path, log) as manager:
        await manager.agree(b"first")
        assert manager.certificate.wanted == 1
        assert len(log.keys.identity_keys) == 2
        assert manager.certificate.sealed[-1] == log.keys.identity_keys[0] != readable

        manager.certificate.renew()
        await let_the_loop_run()
        assert readable not in KeyRing.open(log.path, b"first").identity_keys
        await manager.agree(b"second")
        assert manager.certificate.wanted == 1


async def test_a_kill_before_the_private_key_is_replaced_only_delays_it(tmp_path: Path) -> None:
    log = Log(tmp_path)
    async with running(tmp_path, log) as manager:
        await manager.agree(b"first")
    log.keys = KeyRing.open(log.path, b"first")

    async with running(tmp_path / "again", log, agreed=b"first") as manager:
        assert manager.certificate.wanted == 1
        manager.certificate.renew()
        await let_the_loop_run()

        assert len(log.keys.identity_keys) == 1
        assert not log.keys.is_identity_exposed


async def test_an_unlock_key_does_not_wait_for_a_new_certificate(tmp_path: Path) -> None:
    log = Log(tmp_path)
    async with running(tmp_path, log) as manager:
        await manager.agree(b"first")
        await manager.agree(b"second")

        assert log.opens_with(b"second")


def test_a_new_cluster_is_locked_with_the_key_that_was_given_or_a_fresh_one() -> None:
    def keys(**more: object) -> list[bytes]:
        founder = Founder(
            node_id="n",
            cluster_id="c",
            certificate=b"",
            root_certificate=b"",
            root_key=b"",
            root_digest="0" * 64,
            **more,  # type: ignore[arg-type]
        )
        return [key.key for key in new_cluster(founder).unlock_keys]

    assert keys() == []
    assert keys(autolock=True, unlock_key=b"k" * 32) == [b"k" * 32]
    assert len(keys(autolock=True)[0]) == 32
