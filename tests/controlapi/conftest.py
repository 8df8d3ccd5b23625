"""A control service on a store of its own, with simple stand-ins for the CA and the raft membership."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import ClusterSpec
from swarmcore.api.types_pb2 import NodeRole, RaftMemberStatus, RootCA
from swarmcore.controlapi.control import ControlService
from swarmcore.errors import SwarmError
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.store import running_store


@dataclass(kw_only=True)
class FakeMember:
    raft_id: int
    node_id: str
    address: str = "10.0.0.1:4242"
    reachability: int = RaftMemberStatus.REACHABLE
    is_leader: bool = False


@dataclass
class FakeClusterOps:
    """What the CA would do, told apart by easy marks."""

    removed: list[str] = field(default_factory=list)
    tokens: int = 0

    def rotate_join_token(self, cluster: Cluster, role: NodeRole.ValueType) -> str:
        self.tokens += 1
        return f"SWMTKN-1-fresh-{NodeRole.Name(role).lower()}-{self.tokens}"

    def new_unlock_key(self) -> bytes:
        self.tokens += 1
        return f"unlock-key-{self.tokens}".encode()

    async def plan_root_ca(self, cluster: Cluster, spec: ClusterSpec) -> RootCA:
        return RootCA.FromString(cluster.root_ca.SerializeToString())

    def record_removed_node(self, tx: Transaction, node: Node) -> None:
        self.removed.append(node.id)


@dataclass
class Setup:
    """A control service and what it works on."""

    store: Store
    control: ControlService
    clock: SimulatedClock
    members: list[FakeMember]
    ops: FakeClusterOps

    async def put(self, *objects: Any) -> None:
        """Write objects into their tables."""

        def write(tx: Transaction) -> None:
            for obj in objects:
                copy = type(obj)()
                copy.CopyFrom(obj)
                tx.table(type(obj).DESCRIPTOR.name.lower()).create(copy)

        await self.store.update(write)

    def add_member(self, node_id: str, **more: Any) -> None:
        """Let raft know a manager."""
        self.members.append(FakeMember(node_id=node_id, **more))

    async def refused(self, call: Awaitable[object], error: type[SwarmError], text: str) -> None:
        """The call is refused in these words, and nothing was written."""
        before = self.store.version
        with pytest.raises(error) as caught:
            await call
        assert text in str(caught.value)
        assert str(caught.value).isprintable()
        assert self.store.version == before


def make_setup(store: Store) -> Setup:
    clock = SimulatedClock()
    members: list[FakeMember] = []
    ops = FakeClusterOps()
    numbers = count(1)
    control = ControlService(
        store,
        members=lambda: members,
        cluster_ops=ops,
        clock=clock,
        new_id=lambda: f"new{next(numbers):022d}",
    )
    return Setup(store, control, clock, members, ops)


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running_store() as store:
        yield make_setup(store)
