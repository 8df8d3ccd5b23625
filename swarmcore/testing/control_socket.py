"""A real control service behind the real control socket, in a thread with a loop: what `swarmctl` is tested on.

The CA and the raft membership are stand-ins. Nothing runs tasks: a test writes the statuses it wants to see.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from swarmcore.api import ca_pb2, ca_pb2_grpc, control_pb2_grpc, plugins_pb2_grpc
from swarmcore.api.objects_pb2 import Cluster, Node, Service, Task
from swarmcore.api.specs_pb2 import ClusterSpec, NodeSpec
from swarmcore.api.types_pb2 import NodeRole, NodeStatus, RaftMemberStatus, RootCA, TaskState
from swarmcore.ca.security import SecurityConfig
from swarmcore.controlapi.clusters import MANAGER_SUBSYSTEM
from swarmcore.controlapi.control import ControlService
from swarmcore.controlapi.plugins import PluginsService
from swarmcore.node.listeners import Service as ServiceOnServer
from swarmcore.node.listeners import serve_control
from swarmcore.plugin.plugin_set import PluginReport, PluginSet, PluginState
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.store import running_store

T = TypeVar("T")

NOW = 1_700_000_000.0
ROOT_DIGEST = "sha256:" + "ab" * 32


@dataclass(kw_only=True)
class FakeMember:
    raft_id: int
    node_id: str
    address: str = "10.1.1.1:4242"
    reachability: int = RaftMemberStatus.REACHABLE
    is_leader: bool = False


class FakeClusterOps:
    """What the CA would do."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def rotate_join_token(self, cluster: Cluster, role: NodeRole.ValueType) -> str:
        return f"SWMTKN-1-fresh-{NodeRole.Name(role).lower()}-{next(self._numbers)}"

    def new_unlock_key(self) -> bytes:
        return b"k" * 32

    async def plan_root_ca(self, cluster: Cluster, spec: ClusterSpec) -> RootCA:
        return RootCA.FromString(cluster.root_ca.SerializeToString())

    def record_removed_node(self, tx: Transaction, node: Node) -> None:
        """Nothing to remember."""


class FakeCA(ca_pb2_grpc.CAServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetRootCACertificate(self, request: Any, context: Any) -> ca_pb2.GetRootCACertificateResponse:
        return ca_pb2.GetRootCACertificateResponse()

    async def GetUnlockKey(self, request: Any, context: Any) -> ca_pb2.GetUnlockKeyResponse:
        cluster = next(iter(self._store.view.cluster.all()))
        keys = [key.key for key in cluster.unlock_keys if key.subsystem == MANAGER_SUBSYSTEM]
        return ca_pb2.GetUnlockKeyResponse(unlock_key=keys[0] if keys else b"")


def some_plugins() -> PluginSet:
    return PluginSet(
        number=14,
        loaded=(
            PluginReport(
                name="constraint-filter",
                state=PluginState.OK,
                distribution="swarmcore-constraint-filter",
                version="1.0.3",
                summary="Places tasks by their constraints",
                provides=("filter/constraint",),
                order=300,
                hooks=("swarmcore_scheduler_filters",),
                calls=1_200_000,
                p99_seconds=31e-6,
            ),
            PluginReport(
                name="broken",
                state=PluginState.ERROR,
                version="0.3.0",
                error="ModuleNotFoundError: No module named 'nosuch'",
                traceback="Traceback (most recent call last):\n  …\nModuleNotFoundError: No module named 'nosuch'\n",
            ),
        ),
    )


class FakeManager:
    """Start it, `put` objects into its store, point `swarmctl` at its `socket`."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="ctl")
        self.socket = str(Path(self._folder) / "swarm.sock")
        self.root_ca = Path(self._folder) / "certificates" / "swarm-root-ca.crt"
        self.members: list[FakeMember] = []
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()
        shutil.rmtree(self._folder)

    async def _serve(self) -> None:
        numbers = count(1)
        async with running_store(lambda: NOW) as self.store:
            control = ControlService(
                self.store,
                members=lambda: self.members,
                cluster_ops=FakeClusterOps(),
                new_id=lambda: f"new{next(numbers):022d}",
            )
            services: list[ServiceOnServer] = [
                (control_pb2_grpc.add_ControlServicer_to_server, control),
                (
                    plugins_pb2_grpc.add_PluginsServicer_to_server,
                    PluginsService(some_plugins, "manager0", "docker1", on_disk=dict),
                ),
                (ca_pb2_grpc.add_CAServicer_to_server, FakeCA(self.store)),
            ]
            security = SecurityConfig.create_cluster(self.root_ca.parent)
            listener = await serve_control(path=Path(self.socket), security=security, services=services)
            self._started.set()
            await self._stop.wait()
            await listener.aclose(0)

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Run one transaction, and wait for it."""
        return asyncio.run_coroutine_threadsafe(self.store.update(change), self._loop).result(10)

    def put(self, *objects: Any) -> None:
        """Create objects, or replace those there are."""

        def write(tx: Transaction) -> None:
            for obj in objects:
                table = tx.table(type(obj).DESCRIPTOR.name.lower())
                copy = type(obj).FromString(obj.SerializeToString())
                old = table.get(obj.id)
                if old is None:
                    table.create(copy)
                else:
                    copy.meta.CopyFrom(old.meta)
                    table.update(copy)

        self.write(write)

    def all(self, table: str) -> list[Any]:
        """Copies of all objects of a table."""

        async def read() -> list[Any]:
            return [type(obj).FromString(obj.SerializeToString()) for obj in self.store.view.table(table).all()]

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(10)

    def one(self, table: str) -> Any:
        (found,) = self.all(table)
        return found


def a_node(id: str, hostname: str, *, state: NodeStatus.State.ValueType = NodeStatus.READY, **spec: Any) -> Node:
    node = Node(id=id, spec=NodeSpec(membership=NodeSpec.ACCEPTED))
    node.description.hostname = hostname
    node.status.state = state
    node.spec.MergeFrom(NodeSpec(**spec))
    node.role = node.spec.desired_role
    return node


def a_cluster() -> Cluster:
    cluster = Cluster(id="cluster0")
    cluster.spec.annotations.name = "default"
    cluster.spec.orchestration.task_history_retention_limit = 5
    cluster.spec.dispatcher.heartbeat_period.seconds = 5
    cluster.spec.ca_config.node_cert_expiry.seconds = 2160 * 3600
    cluster.root_ca.ca_cert_hash = ROOT_DIGEST
    cluster.root_ca.join_tokens.worker = "SWMTKN-1-root-worker"
    cluster.root_ca.join_tokens.manager = "SWMTKN-1-root-manager"
    return cluster


def a_task(
    id: str, service: Service, slot: int, *, node: str = "", state: TaskState.ValueType = TaskState.RUNNING
) -> Task:
    task = Task(id=id, service_id=service.id, slot=slot, node_id=node, spec=service.spec.task)
    task.service_annotations.CopyFrom(service.spec.annotations)
    task.spec_version.CopyFrom(service.spec_version)
    task.endpoint.spec.CopyFrom(service.spec.endpoint)
    task.status.state = state
    task.desired_state = TaskState.RUNNING
    return task


def three_nodes(manager: FakeManager) -> None:
    """The session's nodes: docker1 leads."""
    manager.put(
        a_node("6rj5b1zx4makm", "docker1", desired_role=NodeRole.MANAGER),
        a_node("91c04eb0s86k8", "docker2"),
        a_node("nf6xx9hpf3s39", "docker3"),
        a_cluster(),
    )
    manager.members[:] = [FakeMember(raft_id=1, node_id="6rj5b1zx4makm", is_leader=True)]


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Ctl = Callable[..., Result]
