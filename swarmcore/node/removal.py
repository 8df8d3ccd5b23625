"""Whether this node was removed from its cluster: asked of the leader, and more than once.

A manager that has not heard of a node yet refuses it in the same words, and a leader that is none any more does not
know it for some seconds. Who believed the first word would end the tasks of a node that belongs to the cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import grpc

from swarmcore.ca.request import is_unknown
from swarmcore.clock import Clock

ASKS = 3
PAUSE_SECONDS = 4.0
"""Longer than a leader goes on that has lost the others."""


class Identity(Protocol):
    """What is needed of the node's `SecurityConfig`."""

    @property
    def node_id(self) -> str: ...
    def open_anonymous_channel(self, address: str) -> grpc.aio.Channel:
        """A channel that verifies the manager as one of this cluster. A removed node's certificate opens nothing."""
        ...


class Removal:
    """Asks the managers that are known, which ask the leader."""

    def __init__(self, identity: Identity, pick: Callable[[], str], clock: Clock) -> None:
        """`pick` gives the address of a manager to ask, a new one each time; empty where none is known."""
        self._identity = identity
        self._pick = pick
        self._clock = clock

    async def is_sure(self) -> bool:
        """Whether leaders said three times in a row, within eight seconds, that they know no such node."""
        for number in range(ASKS):
            if number:
                await self._clock.sleep_until(self._clock.monotonic() + PAUSE_SECONDS)
            address = self._pick()
            if not address:
                return False
            async with self._identity.open_anonymous_channel(address) as channel:
                if not await is_unknown(channel, self._identity.node_id):
                    return False
        return True
