"""Nodes of a locked cluster: who is told the unlock key, and what never stands on a disk in the open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.types_pb2 import EncryptionKey, NodeRole
from swarmcore.ca.request import RefusedError, fetch_unlock_key
from swarmcore.ca.security import SecurityConfig
from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.errors import UnavailableError
from swarmcore.store.transaction import Transaction
from swarmcore.testing.trust import TrustedManager, trusted_manager

UNLOCK_KEY = b"u" * 32


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[TrustedManager]:
    async with trusted_manager(tmp_path / "m") as manager:
        yield manager


async def lock(manager: TrustedManager, *keys: bytes) -> None:
    def write(tx: Transaction) -> None:
        cluster = Cluster()
        cluster.CopyFrom(manager.cluster)
        del cluster.unlock_keys[:]
        cluster.unlock_keys.extend(EncryptionKey(subsystem=MANAGER_SUBSYSTEM, key=key) for key in keys)
        tx.cluster.update(cluster)

    await manager.store.update(write)


async def change_role(manager: TrustedManager, node_id: str, role: NodeRole.ValueType) -> None:
    def write(tx: Transaction) -> None:
        old = tx.node.get(node_id)
        assert old is not None
        node = Node()
        node.CopyFrom(old)
        node.role = node.spec.desired_role = role
        tx.node.update(node)

    await manager.store.update(write)


async def renew(node: SecurityConfig, manager: TrustedManager) -> None:
    async def open_channel() -> grpc.aio.Channel:
        return node.open_channel(manager.address)

    await node.renew(open_channel)


async def join(manager: TrustedManager, folder: Path, role: NodeRole.ValueType) -> SecurityConfig:
    return await SecurityConfig.join(folder, manager.address, manager.token(role))


def is_readable(folder: Path) -> bool:
    return b"BEGIN PRIVATE KEY" in (folder / "swarm-node.key").read_bytes()


async def test_a_manager_that_joins_writes_its_private_key_sealed_with_the_unlock_key(
    manager: TrustedManager, tmp_path: Path
) -> None:
    await lock(manager, UNLOCK_KEY)

    node = await join(manager, tmp_path / "n", NodeRole.MANAGER)

    assert node.secret == UNLOCK_KEY and not is_readable(tmp_path / "n")
    assert not (tmp_path / "n" / ".swarm-join.json").exists()


async def test_a_worker_is_told_no_unlock_key(manager: TrustedManager, tmp_path: Path) -> None:
    await lock(manager, UNLOCK_KEY)
    node = await join(manager, tmp_path / "n", NodeRole.WORKER)

    assert is_readable(tmp_path / "n")
    with pytest.raises(RefusedError, match="unauthorized peer role"):
        await fetch_unlock_key(node.open_channel(manager.address))


async def test_a_worker_that_becomes_a_manager_learns_it_before_it_writes_and_forgets_it_as_a_worker(
    manager: TrustedManager, tmp_path: Path
) -> None:
    await lock(manager, UNLOCK_KEY)
    node = await join(manager, tmp_path / "n", NodeRole.WORKER)

    await change_role(manager, node.node_id, NodeRole.MANAGER)
    await renew(node, manager)
    assert node.secret == UNLOCK_KEY and not is_readable(tmp_path / "n")
    assert await fetch_unlock_key(node.open_channel(manager.address)) == UNLOCK_KEY

    await change_role(manager, node.node_id, NodeRole.WORKER)
    with pytest.raises(RefusedError, match="unauthorized peer role"):
        # It has a manager's certificate still, and the store knows better.
        await fetch_unlock_key(node.open_channel(manager.address))
    await renew(node, manager)
    assert node.secret is None and is_readable(tmp_path / "n")


async def test_who_can_not_be_told_the_unlock_key_stays_what_it_is(
    manager: TrustedManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await join(manager, tmp_path / "n", NodeRole.WORKER)
    before = (tmp_path / "n" / "swarm-node.key").read_bytes()
    await change_role(manager, node.node_id, NodeRole.MANAGER)

    async def away(channel: grpc.aio.Channel) -> None:
        await channel.close()
        raise UnavailableError("the leader is away")

    monkeypatch.setattr("swarmcore.ca.request.fetch_unlock_key", away)
    with pytest.raises(UnavailableError, match="the leader is away"):
        await renew(node, manager)

    assert node.role == NodeRole.WORKER
    assert (tmp_path / "n" / "swarm-node.key").read_bytes() == before


async def test_without_a_lock_a_manager_is_told_that_there_is_none(manager: TrustedManager, tmp_path: Path) -> None:
    node = await join(manager, tmp_path / "n", NodeRole.MANAGER)

    assert node.secret is None
    assert await fetch_unlock_key(node.open_channel(manager.address)) is None
