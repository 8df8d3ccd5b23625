"""How an agent reaches a manager: the contract towards the node, and the way over the network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import grpc.aio

from swarmcore.agent.remotes import DEFAULT_OBSERVATION, RemotePeer, Remotes
from swarmcore.api.channels import connected
from swarmcore.errors import UnavailableError

DIAL_SECONDS: Final = 5.0


class Connection(Protocol):
    """A channel to one manager, for one session."""

    @property
    def channel(self) -> grpc.aio.Channel: ...

    @property
    def peer(self) -> str:
        """Who it is, for the log."""
        ...

    def succeeded(self) -> None:
        """The manager gave us a session."""
        ...

    def failed(self) -> None:
        """The manager did not, or the session broke: prefer others."""
        ...

    def is_stock(self) -> bool:
        """The manager is one of SwarmKit's; return whether this connection asks more of it than it puts up with."""
        ...

    async def aclose(self) -> None: ...


class Connections(Protocol):
    """Chooses a manager for each session."""

    async def open(self) -> Connection:
        """Connect. Raises UnavailableError when no manager is known or the one chosen does not answer."""
        ...


class RemoteConnection:
    """Satisfies `Connection`; what happens to it moves the peer's weight."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        peer: RemotePeer,
        remotes: Remotes,
        failed: deque[str],
        on_stock: Callable[[], bool],
    ) -> None:
        """`failed`: where the address is noted when it fails."""
        self.is_stock = on_stock
        self._failed = failed
        self.channel = channel
        self.peer = f"manager {peer.addr}"
        self._peer = peer
        self._remotes = remotes

    def succeeded(self) -> None:
        # Its own list may name it otherwise than it was dialled, or leave it out.
        self._remotes.observe_if_known(self._peer, DEFAULT_OBSERVATION)

    def failed(self) -> None:
        self._remotes.observe_if_known(self._peer, -DEFAULT_OBSERVATION)
        self._failed.append(self._peer.addr)

    async def aclose(self) -> None:
        await self.channel.close()


class RemoteConnections:
    """Satisfies `Connections`: weighted choice among the managers that are known."""

    def __init__(
        self,
        remotes: Remotes,
        dial: Callable[[str], grpc.aio.Channel],
        *,
        dial_stock: Callable[[str], grpc.aio.Channel] | None = None,
        dial_seconds: float = DIAL_SECONDS,
    ) -> None:
        """`dial` makes a channel to `host:port`; it connects to nothing yet.

        `dial_stock` does so for SwarmKit's managers, who hang up on somebody that pings them. No cluster has both.
        """
        self._remotes = remotes
        self._dial = dial
        self._dial_stock = dial_stock
        self._dial_seconds = dial_seconds
        self._failed: deque[str] = deque(maxlen=1)
        """The address that failed last."""

    async def open(self) -> RemoteConnection:
        # Weights forget slowly; whoever just failed is asked last.
        peer = self._remotes.select(tuple(self._failed)) or self._remotes.select()
        if peer is None:
            raise UnavailableError("no manager is known")
        connection = RemoteConnection(self._dial(peer.addr), peer, self._remotes, self._failed, self._take_as_stock)
        try:
            async with asyncio.timeout(self._dial_seconds):
                await connected(connection.channel)
        except (TimeoutError, ConnectionError):
            connection.failed()
            await connection.aclose()
            raise UnavailableError(f"manager {peer.addr} does not answer") from None
        except BaseException:
            await connection.aclose()
            raise
        return connection

    def _take_as_stock(self) -> bool:
        dial, self._dial_stock = self._dial_stock, None
        if dial is None:
            return False
        self._dial = dial
        return True
