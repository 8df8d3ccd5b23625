"""Before a new group is forced: are the others really gone?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import grpc

from swarmcore.api.channels import connected
from swarmcore.api.control_pb2 import ListClustersRequest
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.metadata import STALE
from swarmcore.errors import ConfigurationError

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 7.0
"""A manager without a leader waits 5 s for one before it says so."""


class Found(Enum):
    """What is at the address of another manager."""

    LED = "a manager that has a leader"
    RUNNING = "a manager that has none"
    GONE = "nobody"


async def check_others_are_gone(managers: Sequence[str], dial: Callable[[str], grpc.aio.Channel]) -> None:
    """Raise ConfigurationError where one of `managers` runs: forcing would leave it out.

    A flag that was left in a unit file would throw the others out at each start.
    """
    found = await asyncio.gather(*(_look(manager, dial) for manager in managers))
    at = {kind: [manager for manager, each in zip(managers, found, strict=True) if each is kind] for kind in Found}
    if at[Found.LED]:
        raise ConfigurationError(
            f"--force-new-cluster is for a group without a leader, and the managers at {', '.join(at[Found.LED])} "
            "have one: start this one without it"
        )
    if at[Found.RUNNING]:
        raise ConfigurationError(
            f"--force-new-cluster would leave out the managers at {', '.join(at[Found.RUNNING])}, which run: start "
            "this one without it, or stop those for good; they join again from an empty state directory"
        )


async def _look(manager: str, dial: Callable[[str], grpc.aio.Channel]) -> Found:
    channel = dial(manager)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connected(channel)
        async with asyncio.timeout(ANSWER_SECONDS):
            stub: Any = ControlStub(channel)
            call = stub.ListClusters(ListClustersRequest())
            await call
            # Whoever follows passes it on; whoever knows no leader answers by itself, and says so.
            is_stale = any(key == STALE for key, _ in await call.trailing_metadata() or ())
            return Found.RUNNING if is_stale else Found.LED
    except grpc.aio.AioRpcError as error:
        # Whoever refuses this node's certificate is none of its group any more.
        return Found.RUNNING if error.code() is grpc.StatusCode.UNAVAILABLE else Found.GONE
    except TimeoutError:
        return Found.RUNNING if channel.get_state() is grpc.ChannelConnectivity.READY else Found.GONE
    except ConnectionError:
        return Found.GONE
    finally:
        await channel.close()
