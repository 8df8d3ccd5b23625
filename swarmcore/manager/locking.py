"""Keeps the keys of this manager's log locked as the cluster says: with its unlock key, or with none."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.errors import ResourceExhaustedError
from swarmcore.manager.leading import Leadership
from swarmcore.store.store import Store

log = logging.getLogger("swarmcore.manager")

RETRY_SECONDS = 5.0


class Lockable(Leadership, Protocol):
    """What holds the keys."""

    def is_locked_with(self, unlock_key: bytes | None) -> bool: ...
    async def set_unlock_key(self, unlock_key: bytes | None) -> None:
        """Durable when this returns. Raises OSError where the disk does not take it."""
        ...

    async def rotate_keys(self) -> None:
        """Write everything new under fresh keys. Raises OSError and ResourceExhaustedError as a full disk does."""
        ...


async def keep_locked(store: Store, keys: Lockable, cluster_id: str) -> None:
    """Follow the cluster's unlock key until cancelled. What the disk refuses is tried again."""
    # Before the log is applied, the store shows a cluster of the past.
    await keys.wait_leadership_change(0)
    with store.subscribe(("cluster",)) as changes:
        while True:
            cluster = store.view.cluster.get(cluster_id)
            wanted = None
            for key in cluster.unlock_keys if cluster is not None else ():
                if key.subsystem == MANAGER_SUBSYSTEM:
                    wanted = key.key
            if cluster is not None and not keys.is_locked_with(wanted):
                was_open = keys.is_locked_with(None)
                try:
                    await keys.set_unlock_key(wanted)
                except OSError as error:
                    log.error("the keys of the log can't be locked anew: %s; trying again", error.strerror or error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                log.info("the keys of the log are %s", "not locked any more" if wanted is None else "locked")
                if was_open:
                    await _rotate(keys)
            await changes.get()


async def _rotate(keys: Lockable) -> None:
    """Use keys that never stood on the disk in the open. A full disk is no reason to stop."""
    try:
        await keys.rotate_keys()
    except (OSError, ResourceExhaustedError) as error:
        log.warning("the log is still written under keys that were not locked: %s", error)
