"""Identity and its limits, with a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca import authorize
from swarmcore.ca.authorize import Authorizer, LocalAuthorizer
from swarmcore.ca.root import load_certificates, new_csr, new_key, public_key_of_csr
from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import PermissionDeniedError
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.store import running_store
from swarmcore.testing.trust import write_first_objects

HEARTBEAT = "/docker.swarmkit.v1.Dispatcher/Heartbeat"
LIST_NODES = "/docker.swarmkit.v1.Control/ListNodes"


@dataclass
class FakeContext:
    """What the authoriser asks of gRPC."""

    pem: bytes = b""
    name: str = "unix-abstract:00001"

    def peer(self) -> str:
        return self.name

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self.pem]} if self.pem else {}


def worker(
    security: SecurityConfig,
    clock: SimulatedClock,
    node_id: str = "w",
    role: NodeRole.ValueType = NodeRole.WORKER,
) -> bytes:
    root = security.root_with_key
    assert root is not None
    key = public_key_of_csr(new_csr(new_key()))
    chain = root.sign(key, node_id=node_id, role=role, cluster_id=security.cluster_id, now=clock.now())
    return load_certificates(chain)[0].public_bytes(serialization.Encoding.PEM)


async def test_a_connection_outlives_neither_its_certificate_nor_its_node(tmp_path: Path) -> None:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    context: Any = FakeContext(worker(security, clock))
    async with running_store(clock.now) as store:
        await store.update(lambda tx: write_first_objects(tx, security))
        await store.update(lambda tx: tx.node.create(Node(id="w")))
        guard = Authorizer(security=security, store=store, remote_address=lambda peer: "10.0.0.7", clock=clock)

        caller = guard.authorize(HEARTBEAT, context)
        assert (caller.node_id, caller.role, caller.remote_addr) == ("w", NodeRole.WORKER, "10.0.0.7")
        assert caller.organization == security.cluster_id and not caller.is_local

        await store.update(lambda tx: tx.node.delete("w"))
        with pytest.raises(PermissionDeniedError, match="node w was removed from swarm"):
            guard.authorize(HEARTBEAT, context)

        await store.update(lambda tx: tx.node.create(Node(id="w")))
        await clock.advance(2162 * 3600)
        with pytest.raises(PermissionDeniedError, match="has expired"):
            guard.authorize(HEARTBEAT, context)


async def test_only_so_many_certificates_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize, "REMEMBERED_CERTIFICATES", 2)
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    async with running_store(clock.now) as store:
        guard = Authorizer(security=security, store=store, remote_address=lambda peer: "", clock=clock)
        for number in range(5):
            with pytest.raises(PermissionDeniedError):
                guard.authorize(HEARTBEAT, FakeContext(worker(security, clock, f"n{number}")))  # type: ignore[arg-type]

    assert len(guard._certificates) == 2


@pytest.mark.parametrize("pem", [b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_a_certificate_that_says_nothing_opens_nothing(tmp_path: Path, pem: bytes) -> None:
    security = SecurityConfig.create_cluster(tmp_path)
    async with running_store() as store:
        guard = Authorizer(security=security, store=store, remote_address=lambda peer: "")

        with pytest.raises(PermissionDeniedError):
            guard.authorize(HEARTBEAT, FakeContext(pem))  # type: ignore[arg-type]


async def test_the_root_certificate_itself_is_nobodys_identity(tmp_path: Path) -> None:
    security = SecurityConfig.create_cluster(tmp_path)
    async with running_store() as store:
        guard = Authorizer(security=security, store=store, remote_address=lambda peer: "")

        with pytest.raises(PermissionDeniedError):
            guard.authorize(HEARTBEAT, FakeContext(security.root.certificate_pem))  # type: ignore[arg-type]


async def test_a_demoted_manager_is_a_worker_whatever_its_certificate_says(tmp_path: Path) -> None:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    context: Any = FakeContext(worker(security, clock, "m", NodeRole.MANAGER))
    async with running_store(clock.now) as store:
        await store.update(lambda tx: tx.node.create(Node(id="m", role=NodeRole.MANAGER)))
        guard = Authorizer(security=security, store=store, remote_address=lambda peer: "", clock=clock)
        assert guard.authorize(LIST_NODES, context).role == NodeRole.MANAGER

        def demote(tx: Transaction) -> None:
            node = Node()
            node.CopyFrom(tx.node.get("m") or Node())
            node.role = NodeRole.WORKER
            tx.node.update(node)

        await store.update(demote)

        with pytest.raises(PermissionDeniedError, match="a worker may not call"):
            guard.authorize(LIST_NODES, context)
        assert guard.authorize(HEARTBEAT, context).role == NodeRole.WORKER


async def test_a_manager_with_an_empty_store_hears_raft_from_managers_only(tmp_path: Path) -> None:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    context: Any = FakeContext(worker(security, clock))
    async with running_store(clock.now) as store:
        guard = Authorizer(security=security, store=store, remote_address=lambda peer: "", clock=clock)

        with pytest.raises(PermissionDeniedError, match="may not call"):
            guard.authorize("/swarmcore.v1.Raft/Append", context)
        with pytest.raises(PermissionDeniedError, match="was removed"):
            guard.authorize(HEARTBEAT, context)


async def test_the_control_socket_has_the_roles_of_its_node(tmp_path: Path) -> None:
    security = SecurityConfig.create_cluster(tmp_path)
    guard = LocalAuthorizer(security)

    caller = guard.authorize(LIST_NODES, FakeContext())  # type: ignore[arg-type]

    assert caller.is_local and caller.node_id == security.node_id and caller.role == NodeRole.MANAGER
    with pytest.raises(PermissionDeniedError):
        guard.authorize("/docker.swarmkit.v1.Control/Nonsense", FakeContext())  # type: ignore[arg-type]
