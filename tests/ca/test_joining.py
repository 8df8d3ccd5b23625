"""A node's way into a cluster, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.security import SecurityConfig
from swarmcore.testing.trust import trusted_manager


@pytest.mark.parametrize("role", [NodeRole.WORKER, NodeRole.MANAGER])
async def test_a_token_gives_a_node_its_role(tmp_path: Path, role: NodeRole.ValueType) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        joined = await SecurityConfig.join(tmp_path / "n", manager.address, manager.token(role))

        node = manager.store.view.node.get(joined.node_id)

    assert node is not None and node.role == joined.role == role
    assert joined.cluster_id == manager.security.cluster_id
    assert SecurityConfig.load(tmp_path / "n") is not None


async def test_a_node_without_a_token_waits_until_it_is_accepted(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        changes = manager.store.subscribe(("node",))
        joining = asyncio.create_task(SecurityConfig.join(tmp_path / "n", manager.address, ""))
        commit = await changes.get()
        node_id = commit.changes[0].id  # type: ignore[union-attr]
        await manager.accept(node_id)
        joined = await joining
        changes.close()

    assert joined.node_id == node_id and joined.role == NodeRole.WORKER
