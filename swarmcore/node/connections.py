"""How a node that is a manager reaches the dispatcher: through its own control socket."""

from __future__ import annotations

from pathlib import Path

import grpc

from swarmcore.agent.connections import Connection


def control_channel(socket: Path) -> grpc.aio.Channel:
    """A channel to this node's own manager, where it is trusted as this node."""
    return grpc.aio.insecure_channel(
        f"unix:{socket}",
        options=[("grpc.max_receive_message_length", -1), ("grpc.default_authority", "localhost")],
    )


class OwnManager:
    """Satisfies `Connection`."""

    peer = "this node's own manager"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def succeeded(self) -> None:
        """There is no other one to prefer."""

    def failed(self) -> None:
        """There is no other one to turn to."""

    def is_stock(self) -> bool:
        return False

    async def aclose(self) -> None:
        await self.channel.close()


class OwnManagerConnections:
    """Satisfies `Connections`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def open(self) -> Connection:
        return OwnManager(control_channel(self._socket))
