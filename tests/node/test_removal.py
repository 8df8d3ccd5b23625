"""A node believes that it was removed when leaders say so again and again, and nobody says anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from swarmcore.agent.remotes import RemotePeer, Remotes
from swarmcore.api.ca_pb2 import NodeCertificateStatusRequest, NodeCertificateStatusResponse
from swarmcore.api.ca_pb2_grpc import NodeCAServicer, add_NodeCAServicer_to_server
from swarmcore.node.removal import ASKS, PAUSE_SECONDS, Removal
from swarmcore.testing.clock import SimulatedClock

UNKNOWN, UNAVAILABLE, DENIED = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.PERMISSION_DENIED,
)


class Leader(NodeCAServicer):
    """Answers in turn with a status, or that it knows the node."""

    def __init__(self) -> None:
        self.answers: list[grpc.StatusCode | None] = []
        self.remotes = Remotes()
        self.node_id = "n"

    async def NodeCertificateStatus(
        self, request: NodeCertificateStatusRequest, context: Any
    ) -> NodeCertificateStatusResponse:
        assert request.node_id == "n"
        if (code := self.answers.pop(0)) is not None:
            await context.abort(code, "node n not found")
        return NodeCertificateStatusResponse()

    def open_anonymous_channel(self, address: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address)


def make_leader() -> Leader:
    return Leader()  # type: ignore[abstract]  # the generated base answers the other calls


@pytest.fixture
async def leader() -> AsyncIterator[Leader]:
    leader, server = make_leader(), grpc.aio.server()
    add_NodeCAServicer_to_server(leader, server)
    leader.remotes.observe(RemotePeer("m", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"), 10)
    await server.start()
    yield leader
    await server.stop(None)


async def is_sure(leader: Leader, clock: SimulatedClock) -> bool:
    asking = asyncio.ensure_future(Removal(leader, leader.remotes.pick, clock).is_sure())
    await clock.until_done(asking)
    return asking.result()


async def test_three_answers_over_some_time_are_believed(leader: Leader) -> None:
    clock = SimulatedClock()
    began = clock.monotonic()
    leader.answers = [UNKNOWN] * ASKS

    assert await is_sure(leader, clock)
    assert leader.answers == []
    assert clock.monotonic() - began >= (ASKS - 1) * PAUSE_SECONDS


@pytest.mark.parametrize("other", [None, UNAVAILABLE, DENIED])
async def test_any_other_answer_between_them_is_no_removal(leader: Leader, other: grpc.StatusCode | None) -> None:
    leader.answers = [UNKNOWN, UNKNOWN, other]

    assert not await is_sure(leader, SimulatedClock())


async def test_a_node_that_knows_no_manager_was_not_removed() -> None:
    assert not await is_sure(make_leader(), SimulatedClock())
