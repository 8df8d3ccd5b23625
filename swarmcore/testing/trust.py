"""A manager that is only trust: a store, the CA and the one port, for tests of what stands in front of the services."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmcore.api.ca_pb2_grpc import add_CAServicer_to_server, add_NodeCAServicer_to_server
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.acceptance import AcceptRuleLike
from swarmcore.ca.security import SecurityConfig
from swarmcore.ca.server import CertificateAuthority
from swarmcore.clock import Clock, SystemClock
from swarmcore.manager.bootstrap import Founder, ensure_cluster
from swarmcore.node.listeners import Listener, Service, serve_remote
from swarmcore.plugin.loader import load
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.store import running_store


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedManager:
    """What a test needs to join it and to look inside."""

    security: SecurityConfig
    store: Store
    authority: CertificateAuthority
    listener: Listener

    @property
    def address(self) -> str:
        return self.listener.address

    @property
    def cluster(self) -> Cluster:
        cluster = self.store.view.cluster.get(self.security.cluster_id)
        assert cluster is not None
        return cluster

    def token(self, role: NodeRole.ValueType = NodeRole.WORKER) -> str:
        tokens = self.cluster.root_ca.join_tokens
        return tokens.manager if role == NodeRole.MANAGER else tokens.worker

    async def accept(self, node_id: str) -> None:
        """What `swarmctl node accept` does."""

        def write(tx: Transaction) -> None:
            old = tx.node.get(node_id)
            assert old is not None
            node = Node()
            node.CopyFrom(old)
            node.spec.membership = NodeSpec.ACCEPTED
            tx.node.update(node)

        await self.store.update(write)

    async def remove(self, node_id: str) -> None:
        """What `swarmctl node remove` does to the node object."""
        await self.store.update(lambda tx: tx.node.delete(node_id))


def write_first_objects(tx: Transaction, security: SecurityConfig) -> None:
    """What a first leader writes: the cluster and its own node."""
    root = security.root_with_key
    assert root is not None
    founder = Founder(
        node_id=security.node_id,
        cluster_id=security.cluster_id,
        certificate=security.material.chain_pem,
        root_certificate=root.certificate_pem,
        root_key=root.key_pem,
        root_digest=root.digest,
    )
    ensure_cluster(tx, founder)


@contextlib.asynccontextmanager
async def trusted_manager(
    folder: Path,
    *,
    services: Sequence[Service] = (),
    acceptance: Sequence[AcceptRuleLike] = (),
    clock: Clock | None = None,
    plugins: PluginSet | None = None,
    listen: str = "127.0.0.1:0",
) -> AsyncIterator[TrustedManager]:
    """Run one, with a cluster of its own, on a free port of loopback."""
    clock = clock or SystemClock()
    security = SecurityConfig.create_cluster(folder, clock)
    loaded = plugins if plugins is not None else load(role="manager")
    async with running_store(clock.now if clock is not None else time.time) as store:
        await store.update(lambda tx: write_first_objects(tx, security))
        authority = CertificateAuthority(
            store, security=security, plugins=lambda: loaded, clock=clock, acceptance=acceptance
        )
        signer = asyncio.create_task(authority.run(store.writer(1)))
        listener = await serve_remote(
            listen=listen,
            security=security,
            store=store,
            services=[
                (add_CAServicer_to_server, authority),
                (add_NodeCAServicer_to_server, authority),
                *services,
            ],
            clock=clock,
        )
        try:
            yield TrustedManager(security=security, store=store, authority=authority, listener=listener)
        finally:
            await listener.aclose(0.5)
            signer.cancel()
            await asyncio.gather(signer, return_exceptions=True)
