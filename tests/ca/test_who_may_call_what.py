"""Every RPC there is, called by every kind of caller, on real sockets."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

import swarmcore.api
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.roles import ANYONE, MANAGER, NODE, ROLES, is_for_socket_only
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.channels import anonymous_channel, authenticated_channel
from swarmcore.ca.root import RootCA, new_csr, new_key, public_key_of_csr
from swarmcore.ca.security import SecurityConfig
from swarmcore.node.listeners import Listener, Service, serve_remote
from swarmcore.store.transaction import Transaction
from swarmcore.testing.store import running_store
from swarmcore.testing.trust import write_first_objects

DENIED = grpc.StatusCode.PERMISSION_DENIED
PASSED = grpc.StatusCode.UNIMPLEMENTED
"""What the generated base classes answer: the call got through to the service."""
NO_CONNECTION = grpc.StatusCode.UNAVAILABLE


def modules(ending: str) -> Iterator[Any]:
    for info in pkgutil.iter_modules(swarmcore.api.__path__):
        if info.name.endswith(ending):
            yield importlib.import_module(f"swarmcore.api.{info.name}")


def all_methods() -> dict[str, MethodDescriptor]:
    return {
        f"/{service.full_name}/{method.name}": method
        for module in modules("_pb2")
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def all_services() -> list[Service]:
    """The generated base class of every service."""
    services: list[Service] = []
    for module in modules("_pb2_grpc"):
        for name in dir(module):
            if name.startswith("add_") and name.endswith("Servicer_to_server"):
                base = getattr(module, name.removeprefix("add_").removesuffix("_to_server"))
                services.append((getattr(module, name), base()))
    return services


def certificate(root: RootCA, *, node_id: str, role: NodeRole.ValueType, cluster_id: str, age: float = 0) -> Any:
    """Chain and key of a node, made `age` seconds ago for two hours."""
    key = new_key()
    chain = root.sign(
        public_key_of_csr(new_csr(key)),
        node_id=node_id,
        role=role,
        cluster_id=cluster_id,
        now=time.time() - age,
        validity=timedelta(hours=1),
    )
    return chain, key


class Swarm:
    """A manager with every service, and a channel for each kind of caller."""

    def __init__(self, listener: Listener, security: SecurityConfig) -> None:
        self.security = security
        self.channels: dict[str, grpc.aio.Channel] = {}
        self._address = listener.address

    def caller(self, kind: str, chain: bytes, key: bytes) -> None:
        root = self.security.root.certificate_pem
        self.channels[kind] = authenticated_channel(self._address, root, key, chain)

    async def call(self, kind: str, path: str, method: MethodDescriptor) -> tuple[grpc.StatusCode, str]:
        channel: Any = self.channels[kind]  # calls without serialisers: plain bytes
        call: Any
        if method.server_streaming:
            call = channel.unary_stream(path)(b"", timeout=20)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.read()
        elif method.client_streaming:
            call = channel.stream_unary(path)(timeout=20)
        else:
            call = channel.unary_unary(path)(b"", timeout=20)
        return await call.code(), await call.details()


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    security = SecurityConfig.create_cluster(tmp_path)
    root = security.root_with_key
    assert root is not None
    foreign = RootCA.create(now=time.time())
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(running_store(time.time))
        await store.update(lambda tx: write_first_objects(tx, security))
        listener = await serve_remote(listen="127.0.0.1:0", security=security, store=store, services=all_services())
        stack.push_async_callback(listener.aclose, 0)
        swarm = Swarm(listener, security)

        def create(tx: Transaction) -> None:
            for node_id, role in (("a-worker", NodeRole.WORKER), ("a-manager", NodeRole.MANAGER)):
                tx.node.create(Node(id=node_id, role=role, spec=NodeSpec(membership=NodeSpec.ACCEPTED)))

        await store.update(create)
        ours = security.cluster_id
        who = {
            "worker": certificate(root, node_id="a-worker", role=NodeRole.WORKER, cluster_id=ours),
            "manager": certificate(root, node_id="a-manager", role=NodeRole.MANAGER, cluster_id=ours),
            "removed worker": certificate(root, node_id="gone", role=NodeRole.WORKER, cluster_id=ours),
            "removed manager": certificate(root, node_id="gone", role=NodeRole.MANAGER, cluster_id=ours),
            "expired": certificate(root, node_id="a-manager", role=NodeRole.MANAGER, cluster_id=ours, age=9000),
            "foreign CA": certificate(foreign, node_id="a-manager", role=NodeRole.MANAGER, cluster_id=ours),
            "other cluster": certificate(root, node_id="a-manager", role=NodeRole.MANAGER, cluster_id="other"),
        }
        for kind, (chain, key) in who.items():
            swarm.caller(kind, chain, key)
        swarm.channels["no certificate"] = anonymous_channel(listener.address, root.certificate_pem)
        yield swarm
        for channel in swarm.channels.values():
            await channel.close()


EXPECTED = {
    "no certificate": {ANYONE: PASSED, NODE: DENIED, MANAGER: DENIED},
    "worker": {ANYONE: PASSED, NODE: PASSED, MANAGER: DENIED},
    "manager": {ANYONE: PASSED, NODE: PASSED, MANAGER: PASSED},
    "removed worker": dict.fromkeys((ANYONE, NODE, MANAGER), DENIED),
    "removed manager": dict.fromkeys((ANYONE, NODE, MANAGER), DENIED),
    "other cluster": dict.fromkeys((ANYONE, NODE, MANAGER), DENIED),
    "expired": dict.fromkeys((ANYONE, NODE, MANAGER), NO_CONNECTION),
    "foreign CA": dict.fromkeys((ANYONE, NODE, MANAGER), NO_CONNECTION),
}


def test_every_rpc_has_a_row_and_every_row_an_rpc() -> None:
    assert set(ROLES) == set(all_methods())


async def test_each_caller_gets_what_its_role_allows_and_nothing_else(swarm: Swarm) -> None:
    methods = all_methods()

    for kind, answers in EXPECTED.items():
        got = {path: (await swarm.call(kind, path, method))[0] for path, method in methods.items()}

        expected = {path: answers[ROLES[path]] for path in methods}
        for path in filter(is_for_socket_only, methods):
            if expected[path] is PASSED:
                # A certificate is not enough, whoever's it is.
                expected[path] = DENIED
        assert got == expected, kind


async def test_a_refusal_says_why(swarm: Swarm) -> None:
    path = "/docker.swarmkit.v1.Dispatcher/Heartbeat"
    method = all_methods()[path]

    words = {kind: (await swarm.call(kind, path, method))[1] for kind in ("removed worker", "other cluster")}

    assert words["removed worker"] == "node gone was removed from swarm"
    assert words["other cluster"] == "node a-manager belongs to another cluster"


async def test_nobody_without_a_certificate_reaches_the_listener_for_nodes(swarm: Swarm) -> None:
    root = swarm.security.root.certificate_pem
    credentials = grpc.ssl_channel_credentials(root)
    options = [("grpc.ssl_target_name_override", "swarm-manager")]
    async with grpc.aio.secure_channel(swarm._address, credentials, options=options) as opened:
        channel: Any = opened
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/docker.swarmkit.v1.CA/GetRootCACertificate")(b"", timeout=20)

    assert caught.value.code() is NO_CONNECTION


async def test_a_method_with_another_spelling_is_unknown(swarm: Swarm) -> None:
    channel: Any = swarm.channels["no certificate"]

    for path in ("/docker.swarmkit.v1.control/ListNodes", "/docker.swarmkit.v1.Control/ListNodes/", "/x/y"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path)(b"", timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
