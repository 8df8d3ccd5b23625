"""A manager that the others refuse asks one of them what it is; one that they take asks nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from swarmcore.agent.remotes import RemotePeer, Remotes
from swarmcore.ca.renewal import Renewer
from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import UnavailableError
from swarmcore.manager.manager import Manager
from swarmcore.node.outcast import ASK_AGAIN_SECONDS, LOOK_SECONDS, CertificateWay, RemovedManagerError
from swarmcore.testing.clock import SimulatedClock


class Certificates:
    """Remembers where channels were opened to, and how often a renewal was demanded."""

    node_id = "self"

    def __init__(self) -> None:
        self.dialled: list[str] = []
        self.demanded = 0

    def open_channel(self, address: str) -> grpc.aio.Channel:
        self.dialled.append(address)
        return grpc.aio.insecure_channel(address)

    def force(self) -> None:
        self.demanded += 1


class Group:
    """What a manager knows of the others."""

    def __init__(self) -> None:
        self.leader_address = ""
        self.refusals = 0
        self.was_removed = False
        self.replica = SimpleNamespace(
            members=lambda: [
                SimpleNamespace(node_id="self", address="self:1"),
                SimpleNamespace(node_id="a", address="a:1"),
                SimpleNamespace(node_id="b", address="b:1"),
            ]
        )


class Node:
    noticing: asyncio.Task[None]

    def __init__(self) -> None:
        self.group, self.certificates, self.clock, self.remotes = Group(), Certificates(), SimulatedClock(), Remotes()
        self.is_removed = False
        self.way = CertificateWay(
            cast(Manager, self.group), cast(SecurityConfig, self.certificates), Path("/own.sock"), self.remotes
        )

    async def was_removed(self) -> bool:
        return self.is_removed

    async def dial(self) -> str:
        await (await self.way.open_channel()).close()
        return self.certificates.dialled[-1]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    node.noticing = asyncio.create_task(node.way.notice(cast(Renewer, node.certificates), node.clock, node.was_removed))
    await asyncio.sleep(0)
    yield node
    node.noticing.cancel()
    with contextlib.suppress(asyncio.CancelledError, RemovedManagerError):
        await node.noticing


async def test_one_refusal_may_come_of_a_store_that_is_behind(node: Node) -> None:
    node.group.refusals = 1
    await node.clock.advance(10 * LOOK_SECONDS)

    assert node.certificates.demanded == 0


async def test_who_is_refused_again_and_again_asks_the_others_in_turn(node: Node) -> None:
    node.remotes.observe(RemotePeer("c", "c:1"), 10)
    node.way.is_serving = True
    node.group.leader_address = "a:1"
    for _ in range(2):
        node.group.refusals += 1
        await node.clock.advance(LOOK_SECONDS)

    assert node.certificates.demanded == 1
    assert [await node.dial() for _ in range(4)] == ["a:1", "b:1", "c:1", "a:1"]


async def test_who_left_the_group_asks_once_a_minute(node: Node) -> None:
    node.group.was_removed = True
    await node.clock.advance(LOOK_SECONDS)
    assert node.certificates.demanded == 1

    for _ in range(3):
        await node.clock.advance(ASK_AGAIN_SECONDS)
        await node.clock.advance(LOOK_SECONDS)
    assert node.certificates.demanded == 4


async def test_a_manager_that_was_removed_is_none_any_more(node: Node) -> None:
    node.group.was_removed = node.is_removed = True
    await node.clock.advance(LOOK_SECONDS)

    with pytest.raises(RemovedManagerError, match="was removed from the cluster"):
        await node.noticing


async def test_a_manager_asks_the_leader_and_before_it_serves_any_other(node: Node) -> None:
    assert await node.dial() == "a:1"
    node.group.leader_address = "b:1"
    assert await node.dial() == "b:1"


async def test_a_manager_that_knows_nobody_says_so(node: Node) -> None:
    node.group.replica = SimpleNamespace(members=lambda: [])

    with pytest.raises(UnavailableError, match="no other manager is known"):
        await node.way.open_channel()
