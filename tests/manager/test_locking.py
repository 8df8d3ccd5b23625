"""The keys of the log follow the cluster's unlock key."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable

import pytest

from swarmcore.api.objects_pb2 import Cluster
from swarmcore.api.types_pb2 import EncryptionKey
from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.errors import ResourceExhaustedError
from swarmcore.manager import locking
from swarmcore.manager.bootstrap import Founder, new_cluster
from swarmcore.manager.locking import keep_locked
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import let_the_loop_run
from swarmcore.testing.store import running_store


class Keys:
    """Keys on a disk that may be full, of a manager that leads when a test says so."""

    def __init__(self, key: bytes | None = None) -> None:
        self.term = 0
        self.key = key
        self.is_full = False
        self.rotations = 0
        self.leads = asyncio.Event()

    async def wait_leadership_change(self, known: int) -> int:
        await self.leads.wait()
        return 1

    def is_locked_with(self, unlock_key: bytes | None) -> bool:
        return self.key == unlock_key

    async def set_unlock_key(self, unlock_key: bytes | None) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.key = unlock_key

    async def rotate_keys(self) -> None:
        self.rotations += 1
        if self.rotations == 2:
            raise ResourceExhaustedError("the disk is full")


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


async def test_the_log_is_locked_anew_whenever_the_key_changes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locking, "RETRY_SECONDS", 0.0)
    keys = Keys(b"of the last run")
    async with running_store() as store:
        await store.update(write(None))
        keeping = asyncio.create_task(keep_locked(store, keys, "c"))
        await let_the_loop_run()
        assert keys.key == b"of the last run"

        keys.leads.set()
        await let_the_loop_run()
        assert keys.key is None

        await store.update(write(b"first"))
        await let_the_loop_run()
        assert keys.key == b"first"

        keys.is_full = True
        await store.update(write(b"second"))
        await let_the_loop_run()
        assert keys.key == b"first" and "can't be locked anew: No space left on device" in caplog.text
        keys.is_full = False
        await let_the_loop_run()
        assert keys.key == b"second"

        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


async def test_keys_that_stood_on_the_disk_in_the_open_are_not_used_once_it_is_locked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = Keys()
    keys.leads.set()
    async with running_store() as store:
        keeping = asyncio.create_task(keep_locked(store, keys, "c"))
        rotations = []
        for key in (None, b"first", b"second", None, b"third", b"fourth"):
            await store.update(write(key))
            await let_the_loop_run()
            rotations.append(keys.rotations)

        assert rotations == [0, 1, 1, 1, 2, 2]
        assert keys.key == b"fourth"
        assert "still written under keys that were not locked: the disk is full" in caplog.text
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


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
