"""How an agent comes to a channel."""

from __future__ import annotations

from random import Random

import grpc.aio
import pytest

from swarmcore.agent.connections import RemoteConnections
from swarmcore.agent.remotes import RemotePeer, Remotes
from swarmcore.api.types_pb2 import Peer, WeightedPeer
from swarmcore.errors import UnavailableError
from swarmcore.testing.managers import FakeManager


async def test_without_any_manager_there_is_nothing_to_connect_to() -> None:
    with pytest.raises(UnavailableError, match="no manager is known"):
        await RemoteConnections(Remotes(), grpc.aio.insecure_channel).open()


async def test_a_manager_that_does_not_answer_loses_weight_and_another_is_chosen() -> None:
    manager = FakeManager()
    await manager.start()
    dead, alive = RemotePeer("dead", "127.0.0.1:1"), RemotePeer("alive", manager.address)
    remotes = Remotes(rng=Random(3))
    remotes.observe(dead, 200)
    connections = RemoteConnections(remotes, grpc.aio.insecure_channel, dial_seconds=0.1)
    with pytest.raises(UnavailableError, match=r"manager 127.0.0.1:1 does not answer"):
        await connections.open()
    weight = remotes.weights[dead]
    remotes.remove(dead)
    remotes.observe(alive, 10)

    connection = await connections.open()
    connection.succeeded()

    assert weight == 45
    assert connection.peer == f"manager {manager.address}"
    assert remotes.weights[alive] == 8
    await connection.aclose()
    await manager.stop()


async def test_a_manager_is_known_once_also_when_it_was_dialled_without_its_name() -> None:
    manager = FakeManager()
    await manager.start()
    remotes = Remotes(rng=Random(3))
    remotes.observe(RemotePeer("", manager.address), 10)
    connection = await RemoteConnections(remotes, grpc.aio.insecure_channel).open()

    remotes.replace([WeightedPeer(peer=Peer(node_id="m1", addr=manager.address), weight=10)])
    connection.succeeded()

    assert list(remotes.weights) == [RemotePeer("m1", manager.address)]
    await connection.aclose()
    await manager.stop()
