"""Calls that a manager passes on: whose identity goes along, and who is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from swarmcore.api.caller import Caller
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.authorize import Authorizer
from swarmcore.ca.forwarding import Metadata, forwarded_caller, is_leaders, metadata_of
from swarmcore.ca.root import load_certificates, new_csr, new_key, public_key_of_csr
from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import PermissionDeniedError
from swarmcore.store.store import Store
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.store import running_store
from swarmcore.testing.trust import write_first_objects

LIST_NODES = "/docker.swarmkit.v1.Control/ListNodes"
HEARTBEAT = "/docker.swarmkit.v1.Dispatcher/Heartbeat"
EXEC = "/swarmcore.v1.TaskAccess/Exec"


@dataclass
class FakeContext:
    """What the authoriser asks of gRPC."""

    pem: bytes
    metadata: Metadata = field(default_factory=tuple)

    def peer(self) -> str:
        return "unix:"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self.pem]} if self.pem else {}

    def invocation_metadata(self) -> Metadata:
        return self.metadata


class Nowhere:
    """A forwarder of a manager that leads."""

    is_leader = True

    async def unary(self, method: str, request: bytes, metadata: Metadata, timeout: float | None) -> bytes:
        raise AssertionError("nothing is passed on")

    def stream(self, method: str, request: bytes | AsyncIterator[bytes], metadata: Metadata) -> AsyncIterator[bytes]:
        raise AssertionError("nothing is passed on")


class Cluster:
    """A root that signs, a guard that checks, and the nodes in the store."""

    def __init__(self, security: SecurityConfig, store: Store, clock: SimulatedClock) -> None:
        self.security = security
        self.store = store
        self._clock = clock
        self.guard = Authorizer(
            security=security, store=store, remote_address=lambda peer: "10.0.0.9", clock=clock, forward=Nowhere()
        )

    async def node(self, id: str, certified: NodeRole.ValueType, role: NodeRole.ValueType | None = None) -> bytes:
        """The certificate of a node whose role in the store may be another by now."""
        node = Node(id=id, role=certified if role is None else role)
        await self.store.update(lambda tx: tx.node.create(node))
        root = self.security.root_with_key
        assert root is not None
        key = public_key_of_csr(new_csr(new_key()))
        chain = root.sign(key, node_id=id, role=certified, cluster_id=self.security.cluster_id, now=self._clock.now())
        return load_certificates(chain)[0].public_bytes(serialization.Encoding.PEM)

    def caller(self, node_id: str, role: NodeRole.ValueType | None, cluster_id: str | None = None) -> Caller:
        organization = self.security.cluster_id if cluster_id is None else cluster_id
        return Caller(node_id=node_id, role=role, organization=organization if role is not None else "")

    def authorize(self, method: str, pem: bytes, passed_on_for: Caller | None = None) -> Caller:
        metadata = metadata_of(passed_on_for) if passed_on_for is not None else ()
        context: Any = FakeContext(pem, metadata)
        return self.guard.authorize(method, context)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    async with running_store(clock.now) as store:
        await store.update(lambda tx: write_first_objects(tx, security))
        yield Cluster(security, store, clock)


async def test_a_manager_speaks_for_the_node_that_called_it(cluster: Cluster) -> None:
    manager = await cluster.node("m", NodeRole.MANAGER)
    await cluster.node("w", NodeRole.WORKER)

    caller = cluster.authorize(HEARTBEAT, manager, cluster.caller("w", NodeRole.WORKER))

    assert (caller.node_id, caller.role, caller.is_forwarded) == ("w", NodeRole.WORKER, True)


async def test_a_worker_speaks_for_nobody_but_itself(cluster: Cluster) -> None:
    worker = await cluster.node("w", NodeRole.WORKER)
    await cluster.node("m", NodeRole.MANAGER)

    with pytest.raises(PermissionDeniedError, match="a worker may not call"):
        cluster.authorize(LIST_NODES, worker, cluster.caller("m", NodeRole.MANAGER))
    assert cluster.authorize(HEARTBEAT, worker, cluster.caller("m", NodeRole.MANAGER)).node_id == "w"


async def test_a_call_without_a_certificate_gains_none_by_being_passed_on(cluster: Cluster) -> None:
    manager = await cluster.node("m", NodeRole.MANAGER)

    with pytest.raises(PermissionDeniedError, match="needs the certificate of a node"):
        cluster.authorize(LIST_NODES, manager, cluster.caller("", None))


async def test_a_manager_that_was_demoted_or_removed_speaks_for_nobody(cluster: Cluster) -> None:
    demoted = await cluster.node("d", NodeRole.MANAGER, NodeRole.WORKER)
    removed = await cluster.node("r", NodeRole.MANAGER)
    await cluster.node("m", NodeRole.MANAGER)
    await cluster.store.update(lambda tx: tx.node.delete("r"))

    for pem in (demoted, removed):
        with pytest.raises(PermissionDeniedError, match="is no manager, and may speak for nobody else"):
            cluster.authorize(LIST_NODES, pem, cluster.caller("m", NodeRole.MANAGER))


async def test_who_is_passed_on_is_checked_like_any_caller(cluster: Cluster) -> None:
    manager = await cluster.node("m", NodeRole.MANAGER)
    await cluster.node("d", NodeRole.MANAGER, NodeRole.WORKER)

    with pytest.raises(PermissionDeniedError, match="node gone was removed from swarm"):
        cluster.authorize(HEARTBEAT, manager, cluster.caller("gone", NodeRole.WORKER))
    with pytest.raises(PermissionDeniedError, match="a worker may not call"):
        cluster.authorize(LIST_NODES, manager, cluster.caller("d", NodeRole.MANAGER))
    with pytest.raises(PermissionDeniedError, match="belongs to another cluster"):
        cluster.authorize(HEARTBEAT, manager, cluster.caller("m", NodeRole.MANAGER, "other"))


@pytest.mark.parametrize(
    "caller",
    [
        Caller(node_id="n", role=NodeRole.WORKER, organization="c", remote_addr="10.1.1.1"),
        Caller(node_id="", role=None, remote_addr="10.1.1.1"),
    ],
)
def test_an_identity_is_the_same_after_the_wire(caller: Caller) -> None:
    found = forwarded_caller(metadata_of(caller))

    assert found is not None
    assert (found.node_id, found.role, found.organization) == (caller.node_id, caller.role, caller.organization)
    assert found.remote_addr == caller.remote_addr
    assert found.is_forwarded


@pytest.mark.parametrize(
    "metadata",
    [
        (("forwarded_cert", "true"), ("forwarded_cert_cn", "n"), ("forwarded_cert_ou", "swarm-king")),
        (("forwarded_cert", "true"), ("forwarded_cert_ou", "swarm-manager")),
        (("forwarded_cert", "true"), ("forwarded_cert_cn", "n" * 999), ("forwarded_cert_ou", "swarm-worker")),
    ],
)
def test_an_identity_that_names_no_node_of_a_known_role_is_refused(metadata: Metadata) -> None:
    with pytest.raises(PermissionDeniedError, match="names no node of a known role"):
        forwarded_caller(metadata)


def test_what_each_manager_answers_by_itself_is_never_passed_on() -> None:
    assert is_leaders(LIST_NODES) and is_leaders(HEARTBEAT)
    for method in ("Raft/Deliver", "Raft/Install", "Plugins/ListPlugins"):
        assert not is_leaders(f"/swarmcore.v1.{method}")
    assert not is_leaders("/docker.swarmkit.v1.Watch/Watch")


async def test_a_command_beside_a_task_is_taken_from_a_manager_that_passes_it_on_and_from_nobody_else(
    cluster: Cluster,
) -> None:
    manager = await cluster.node("m", NodeRole.MANAGER)
    worker = await cluster.node("w", NodeRole.WORKER)
    operator = cluster.caller("m", NodeRole.MANAGER)

    assert cluster.authorize(EXEC, manager, operator).is_forwarded
    with pytest.raises(PermissionDeniedError, match="control socket only"):
        cluster.authorize(EXEC, manager)
    with pytest.raises(PermissionDeniedError, match="a worker may not call"):
        cluster.authorize(EXEC, worker, operator)
    with pytest.raises(PermissionDeniedError, match="a worker may not call"):
        cluster.authorize(EXEC, manager, cluster.caller("w", NodeRole.WORKER))


async def test_no_manager_passes_on_a_command_that_came_by_its_port(cluster: Cluster) -> None:
    manager = await cluster.node("m", NodeRole.MANAGER)
    context: Any = FakeContext(manager)

    with pytest.raises(PermissionDeniedError, match="control socket only"):
        cluster.guard._passing(EXEC, context)
    assert cluster.guard._passing(LIST_NODES, context)
