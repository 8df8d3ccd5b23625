"""The leader's signer: signs what is asked for and may be signed, and forgets nodes that waited too long.

Level-triggered: a change only shortens the wait, and the whole table is read again every 10 s while something waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import IssuanceStatus
from swarmcore.ca.root import RootCA, node_validity, public_key_of_csr
from swarmcore.clock import Clock
from swarmcore.errors import SwarmError
from swarmcore.store.changes import Commit, Resync, Subscription
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

log = logging.getLogger("swarmcore.ca")

RETRY_SECONDS = 10.0
WAITING_SECONDS = 24 * 3600.0
SLICE_SECONDS = 0.010


def wants_signature(node: Node) -> bool:
    """A renewal always; a first certificate once the node is accepted."""
    state = node.certificate.status.state
    return state == IssuanceStatus.RENEW or (
        state == IssuanceStatus.PENDING and node.spec.membership == NodeSpec.ACCEPTED
    )


def is_waiting(node: Node) -> bool:
    """Whether the node has asked to join and nobody has accepted it."""
    return node.spec.membership == NodeSpec.PENDING and node.certificate.status.state == IssuanceStatus.PENDING


class Signer:
    """One term's work."""

    def __init__(self, store: LeaderStore, cluster_id: str, clock: Clock) -> None:
        self._store = store
        self._cluster_id = cluster_id
        self._clock = clock
        self._root: RootCA | None = None
        self._wanted: dict[str, None] = {}
        self._waiting: dict[str, float] = {}
        """Nodes that wait to be accepted, with the moment they asked."""

    async def run(self) -> None:
        """Sign until cancelled."""
        with self._store.subscribe(("node", "cluster")) as changes:
            self._note_all()
            while True:
                await self._sign_all()
                await self._forget_expired()
                await self._wait_changes(changes)

    def _note_all(self) -> None:
        self._wanted.clear()
        self._waiting.clear()
        for node in self._store.view.node.all():
            self._note(node)

    def _note(self, node: Node) -> None:
        if wants_signature(node):
            self._wanted[node.id] = None
        if is_waiting(node):
            self._waiting[node.id] = node.meta.created_at.ToNanoseconds() / 1e9
        else:
            self._waiting.pop(node.id, None)

    async def _wait_changes(self, changes: Subscription) -> None:
        first = asyncio.ensure_future(changes.get())
        alarm: asyncio.Future[None] | None = None
        pause = self._pause()
        if pause is not None:
            alarm = asyncio.ensure_future(self._clock.sleep_until(self._clock.monotonic() + pause))
        try:
            waiting: set[asyncio.Future[Any]] = {first} if alarm is None else {first, alarm}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            commits: list[Commit | Resync] = [first.result()] if first.done() else []
        finally:
            for future in (first, alarm):
                if future is not None:
                    future.cancel()
        for commit in (*commits, *changes.drain()):
            if isinstance(commit, Resync):
                self._note_all()
                continue
            for change in commit.changes:
                if change.table == "node" and change.new is not None:
                    self._note(change.new)
                elif change.table == "node":
                    self._waiting.pop(change.id, None)

    def _pause(self) -> float | None:
        """Seconds until something is due without any change; None for never."""
        if self._wanted:
            return RETRY_SECONDS
        if self._waiting:
            return max(1.0, min(self._waiting.values()) + WAITING_SECONDS - self._clock.now())
        return None

    async def _sign_all(self) -> None:
        cluster = self._store.view.cluster.get(self._cluster_id)
        root = None if cluster is None else self._signing_root(cluster)
        if cluster is None or root is None:
            return
        validity = node_validity(cluster.spec.ca_config.node_cert_expiry.ToNanoseconds() / 1e9)
        signed: list[tuple[str, bytes, bytes, str]] = []
        deadline = time.monotonic() + SLICE_SECONDS
        for node_id in list(self._wanted):
            del self._wanted[node_id]
            node = self._store.view.node.get(node_id)
            if node is None or not wants_signature(node):
                continue
            csr = node.certificate.csr
            chain, err = b"", ""
            try:
                chain = root.sign(
                    public_key_of_csr(csr),
                    node_id=node_id,
                    role=node.role,
                    cluster_id=self._cluster_id,
                    now=self._clock.now(),
                    validity=validity,
                )
            except SwarmError as error:
                err = str(error)
                log.error("can't sign the certificate of node %s: %s", node_id, err)
            signed.append((node_id, csr, chain, err))
            if time.monotonic() >= deadline:
                await asyncio.sleep(0)
                deadline = time.monotonic() + SLICE_SECONDS
        if signed:
            outcomes = await self._store.batch(signed, self._write)
            for (node_id, *_), outcome in zip(signed, outcomes, strict=True):
                if outcome is not None:
                    log.error("can't store the certificate of node %s: %s", node_id, outcome)
                    self._wanted[node_id] = None

    def _signing_root(self, cluster: Cluster) -> RootCA | None:
        """The root that signs now, kept from one time to the next; None where this cluster has no key."""
        root_ca = cluster.root_ca
        if not root_ca.ca_key or not root_ca.ca_cert:
            return None
        known = self._root
        if known is None or (known.certificate_pem, known.key_pem) != (root_ca.ca_cert, root_ca.ca_key):
            self._root = known = RootCA(root_ca.ca_cert, root_ca.ca_key)
        return known

    @staticmethod
    def _write(tx: Transaction, signed: tuple[str, bytes, bytes, str]) -> None:
        node_id, csr, chain, err = signed
        old = tx.node.get(node_id)
        if old is None or old.certificate.csr != csr or not wants_signature(old):
            return
        node = Node()
        node.CopyFrom(old)
        certificate = node.certificate
        certificate.role = node.role
        certificate.cn = node_id
        if err:
            certificate.status.state = IssuanceStatus.FAILED
            certificate.status.err = err
        else:
            certificate.certificate = chain
            certificate.status.CopyFrom(IssuanceStatus(state=IssuanceStatus.ISSUED))
        tx.node.update(node)

    async def _forget_expired(self) -> None:
        limit = self._clock.now() - WAITING_SECONDS
        expired = [node_id for node_id, asked in self._waiting.items() if asked <= limit]
        if not expired:
            return

        def forget(tx: Transaction, node_id: str) -> None:
            node = tx.node.get(node_id)
            if node is not None and is_waiting(node):
                tx.node.delete(node_id)

        await self._store.batch(expired, forget)
        for node_id in expired:
            self._waiting.pop(node_id, None)
        log.info("forgot %d nodes that nobody accepted within a day", len(expired))
