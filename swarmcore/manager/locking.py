"""Keeps what this manager has on its disk locked as the cluster says: with its unlock key, or with none.

Runs on every manager, whether it leads or not. What stood on the disk in the open is replaced once it is locked: the
data keys of the log, and the manager's private key with its certificate. What is still to be replaced is written down
in the key file, so that a kill between two steps only delays the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from swarmcore.ca.security import Material
from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.clock import Clock
from swarmcore.errors import ConfigurationError, SwarmError
from swarmcore.replication.keys import KeyRing
from swarmcore.store.store import Store
from swarmcore.together import run_together

log = logging.getLogger("swarmcore.manager")
R = TypeVar("R")

RETRY_SECONDS = 5.0
BARRIER_SECONDS = 5.0


class Lockable(Protocol):
    """The log, and what holds its keys."""

    @property
    def keys(self) -> KeyRing: ...
    async def change_keys(self, change: Callable[[KeyRing], R]) -> R:
        """Durable when this returns. Raises OSError where the disk does not take it."""
        ...

    async def rotate_keys(self) -> None:
        """Write everything new under fresh keys. Raises OSError and ResourceExhaustedError as a full disk does."""
        ...

    async def read_barrier(self) -> None:
        """Return once the store shows everything agreed before. Raises UnavailableError; may never return."""
        ...


class Identity(Protocol):
    """The manager's private key and certificate."""

    @property
    def cluster_id(self) -> str: ...
    @property
    def serial(self) -> int: ...
    async def wait_change(self, known: int) -> int: ...
    def seal_key(self, secret: bytes) -> None: ...
    def want_new_key(self) -> None: ...
    @property
    def material(self) -> Material: ...


class Locking:
    """`run` it until cancelled; what fails is tried again."""

    def __init__(self, store: Store, log: Lockable, identity: Identity, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._identity = identity
        self._clock = clock
        self._is_locked = asyncio.Event()

    async def run(self) -> None:
        await run_together(self._follow(), self._replace_identity())

    # The lock

    async def _follow(self) -> None:
        with self._store.subscribe(("cluster",)) as changes:
            while True:
                try:
                    await self._lock()
                except OSError as error:
                    log.error(
                        "the keys of this manager can't be locked anew: %s; trying again", error.strerror or error
                    )
                    await self._pause()
                except SwarmError as error:
                    log.warning("what this manager keeps can't be locked anew yet: %s; trying again", error)
                    await self._pause()
                except TimeoutError:
                    log.debug("no leader confirms the unlock key")
                    await self._pause()
                else:
                    await changes.get()

    async def _lock(self) -> None:
        keys = self._log.keys
        if not self._is_as_agreed() or keys.is_data_exposed:
            # A log that is behind shows unlock keys of the past. Nobody may need one of those to open this disk.
            async with asyncio.timeout(BARRIER_SECONDS):
                await self._log.read_barrier()
        if not self._is_as_agreed():
            # First: what is sealed with an unlock key itself would not follow.
            self._identity.seal_key(keys.identity_keys[0])
            unlock_key = self._agreed()
            await self._log.change_keys(lambda ring: ring.lock(unlock_key))
            log.info("what this manager keeps is %s", "not locked any more" if unlock_key is None else "locked")
        if keys.is_data_exposed:
            await self._log.rotate_keys()
        if keys.is_identity_exposed:
            self._is_locked.set()

    def _is_as_agreed(self) -> bool:
        """Whether the disk is locked as the store says; also while the store says nothing yet."""
        has_cluster = self._store.view.cluster.get(self._identity.cluster_id) is not None
        return not has_cluster or self._log.keys.is_locked_with(self._agreed())

    def _agreed(self) -> bytes | None:
        """The cluster's unlock key, as this manager's store has it."""
        cluster = self._store.view.cluster.get(self._identity.cluster_id)
        for key in cluster.unlock_keys if cluster is not None else ():
            if key.subsystem == MANAGER_SUBSYSTEM:
                return key.key or None
        return None

    # The private key

    async def _replace_identity(self) -> None:
        while True:
            await self._is_locked.wait()
            self._is_locked.clear()
            if not self._log.keys.is_identity_exposed:
                continue
            try:
                await self._renew()
            except (OSError, ConfigurationError) as error:
                log.warning("the private key, which was not locked before, can't be replaced yet: %s", error)
                await self._pause()
                self._is_locked.set()

    async def _renew(self) -> None:
        """Seal with a fresh secret, get a certificate for a fresh key, and forget what was readable, in this order."""
        secret = await self._log.change_keys(KeyRing.fresh_identity)
        self._identity.seal_key(secret)
        before = self._identity.material.key_pem
        self._identity.want_new_key()
        while self._identity.material.key_pem == before:
            await self._identity.wait_change(self._identity.serial)
        await self._log.change_keys(lambda ring: ring.retain_identity(secret))
        log.info("the private key, which was not locked before, is replaced")

    async def _pause(self) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + RETRY_SECONDS)
