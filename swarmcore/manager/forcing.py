"""Before a new group is forced: is there really no leader any more?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from swarmcore.api.control_pb2 import ListClustersRequest
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.errors import ConfigurationError

LOOK_SECONDS = 7.0
"""A manager without a leader waits 5 s for one before it says so."""


async def check_nobody_leads(managers: Sequence[str], dial: Callable[[str], grpc.aio.Channel]) -> None:
    """Raise ConfigurationError where one of `managers` has a leader: then this manager has to follow that one.

    A flag that was left in a unit file would throw the others out at each start. Whoever does not answer is gone.
    """
    answers = await asyncio.gather(*(_has_leader(manager, dial) for manager in managers))
    led = [manager for manager, is_led in zip(managers, answers, strict=True) if is_led]
    if led:
        raise ConfigurationError(
            f"--force-new-cluster is for a group without a leader, and the managers at {', '.join(led)} have one: "
            "start this one without it"
        )


async def _has_leader(manager: str, dial: Callable[[str], grpc.aio.Channel]) -> bool:
    channel = dial(manager)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            stub: Any = ControlStub(channel)
            # Whoever follows passes it on.
            await stub.ListClusters(ListClustersRequest())
            return True
    except (grpc.aio.AioRpcError, TimeoutError):
        return False
    finally:
        await channel.close()
