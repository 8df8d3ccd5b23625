"""The Backup service: the whole store as of one log entry, with what a restore needs besides it.

It holds every secret of the cluster, the root's key first, so it answers on the control socket alone. Any manager
serves it out of its own copy of the store, once a leader has confirmed that nothing newer was agreed on before the call
(Raft: ReadIndex): nothing of it crosses the network, and the leader is not kept busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import grpc

from swarmcore.api.backup_pb2 import BackupHeader, BackupPart, BackupRequest
from swarmcore.api.backup_pb2_grpc import BackupServicer
from swarmcore.api.caller import current_caller
from swarmcore.api.ids import new_id
from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.errors import (
    AbortedError,
    FailedPreconditionError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from swarmcore.raft.types import SnapshotMeta
from swarmcore.store.store import Store

log = logging.getLogger("swarmcore.manager")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MAX_AT_ONCE = 2
CONFIRM_SECONDS = 5.0
PART_SECONDS = 60.0
"""So long one part may wait for a reader that does not read."""


class Agreed(Protocol):
    """What is asked of the replica."""

    async def read_barrier(self) -> None: ...
    def applied_point(self) -> SnapshotMeta:
        """Where the store is in the log. Raises UnavailableError while it is being replaced."""
        ...


class BackupService(BackupServicer):
    """Registered on the control socket."""

    def __init__(self, store: Store, replica: Agreed, cluster_id: str, now: Callable[[], float]) -> None:
        self._store = store
        self._replica = replica
        self._cluster_id = cluster_id
        self._now = now
        self._running = 0

    # It writes by itself, so that each part has its deadline.
    async def Take(self, request: BackupRequest, context: Context) -> None:  # type: ignore[override]
        """Stream one backup. Raises UnavailableError where no leader confirms it and the caller wants one to."""
        if not current_caller().is_local:
            raise PermissionDeniedError("a backup holds every secret: it is taken on a manager's own control socket")
        if self._running >= MAX_AT_ONCE:
            raise ResourceExhaustedError(f"{MAX_AT_ONCE} backups are under way already: wait for one of them")
        self._running += 1
        try:
            header, pieces = self._begin(await self._confirm(request.without_leader))
            await _write(context, BackupPart(header=header))
            count = 0
            for piece in pieces:
                await _write(context, BackupPart(piece=piece))
                count += 1
            await _write(context, BackupPart(end=count))
            log.info("backup %s of entry %d was taken", header.id, header.index)
        finally:
            self._running -= 1

    async def _confirm(self, without_leader: bool) -> bool:
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._replica.read_barrier()
            return True
        except (UnavailableError, TimeoutError):
            if without_leader:
                return False
            raise UnavailableError(
                "no leader confirms that this is the newest state: "
                "give --without-leader to back up what this manager has"
            ) from None

    def _begin(self, is_confirmed: bool) -> tuple[BackupHeader, Iterator[bytes]]:
        """The header, and the pieces as of the same moment."""
        point = self._replica.applied_point()
        cluster = self._store.view.cluster.get(self._cluster_id)
        if cluster is None:
            raise UnavailableError("this manager has not received the cluster yet: ask again")
        if not cluster.root_ca.ca_key:
            raise FailedPreconditionError(
                "the root CA's key is not kept in this cluster, so no backup could sign a new manager's certificate"
            )
        header = BackupHeader(
            id=new_id(),
            index=point.index,
            term=point.term,
            membership=point.membership.encode(),
            cluster_id=cluster.id,
            root_certificate=cluster.root_ca.ca_cert,
            root_key=cluster.root_ca.ca_key,
            is_confirmed=is_confirmed,
        )
        for key in cluster.unlock_keys:
            if key.subsystem == MANAGER_SUBSYSTEM:
                header.unlock_key = key.key
        header.created_at.FromNanoseconds(int(self._now() * 1e9))
        return header, self._store.snapshot()


async def _write(context: Context, part: BackupPart) -> None:
    try:
        async with asyncio.timeout(PART_SECONDS):
            await context.write(part)
    except TimeoutError:
        raise AbortedError("the backup is not read any more") from None
