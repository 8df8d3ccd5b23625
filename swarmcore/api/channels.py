"""Waiting for a connection, and no longer than it takes to learn that there is none."""

from __future__ import annotations

import grpc

_GONE = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


async def connected(channel: grpc.aio.Channel) -> None:
    """Return once connected; raises ConnectionError as soon as one try has failed, or the channel was closed.

    gRPC's own `channel_ready` waits on through refusals. The caller sets the deadline.
    """
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in _GONE:
            raise ConnectionError("no connection")
        try:
            await channel.wait_for_state_change(state)
        except grpc.aio.UsageError:
            raise ConnectionError("the channel was closed") from None
        state = channel.get_state(try_to_connect=True)
