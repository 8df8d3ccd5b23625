"""The way from a manager that follows to the one that leads: a connection kept, a wait for a leader bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from swarmcore.api.types_pb2 import RaftMemberStatus
from swarmcore.ca.forwarding import BecameLeader, Metadata
from swarmcore.clock import Clock
from swarmcore.errors import UnavailableError
from swarmcore.replication.replica import Replica

LEADER_SECONDS = 5.0
LOOK_SECONDS = 0.02
CONNECT_SECONDS = 1.0


class LeaderProxy:
    """Satisfies `ca.forwarding.Forwarder`."""

    def __init__(self, replica: Replica, dial: Callable[[str], grpc.aio.Channel], clock: Clock) -> None:
        """`dial` makes a channel with this manager's certificate."""
        self._replica = replica
        self._dial = dial
        self._clock = clock
        self._channel: grpc.aio.Channel | None = None
        self._address = ""

    @property
    def is_leader(self) -> bool:
        return self._replica.term != 0

    async def unary(self, method: str, request: bytes, metadata: Metadata, timeout: float | None) -> bytes:
        """The leader's answer. What never reached a leader is tried again with the next one, for 5 s in all."""
        deadline = self._clock.monotonic() + LEADER_SECONDS
        while True:
            channel = await self._leader(deadline)
            invoke: Any = channel.unary_unary(method)
            call = invoke(request, metadata=metadata, timeout=timeout)
            try:
                return bytes(await call)
            except grpc.aio.AioRpcError as error:
                await self._drop(channel)
                if not _never_arrived(error) or self._clock.monotonic() >= deadline:
                    raise
            finally:
                call.cancel()

    async def stream(self, method: str, request: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        """The leader's answers until it ends them, or stops leading: then callers come again."""
        channel = await self._leader(self._clock.monotonic() + LEADER_SECONDS)
        invoke: Any = channel.unary_stream(method)
        call = invoke(request, metadata=metadata)
        try:
            async for answer in call:
                yield answer
        finally:
            call.cancel()

    async def aclose(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def _leader(self, deadline: float) -> grpc.aio.Channel:
        """A channel to the leader, connected. Raises UnavailableError where none appears in time, and BecameLeader."""
        while True:
            if self._replica.term:
                raise BecameLeader
            leader = self._replica.leader
            if leader is not None and leader.id != self._replica.raft_id:
                if self._channel is None or self._address != leader.address:
                    old, self._address = self._channel, leader.address
                    self._channel = self._dial(leader.address)
                    if old is not None:
                        await old.close()
                channel = self._channel
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CONNECT_SECONDS):
                        await channel.channel_ready()
                        return channel
                await self._drop(channel)
            if self._clock.monotonic() >= deadline:
                raise UnavailableError(self._why_none())
            await self._clock.sleep_until(self._clock.monotonic() + LOOK_SECONDS)

    async def _drop(self, channel: grpc.aio.Channel) -> None:
        """Connect anew the next time: the certificate or the leader may be another one."""
        if self._channel is channel:
            self._channel = None
        await channel.close()

    def _why_none(self) -> str:
        members = self._replica.members()
        voters = len(self._replica.membership.voters)
        silent = [member.address for member in members if member.reachability != RaftMemberStatus.REACHABLE]
        return (
            "The swarm does not have a leader. It's possible that too few managers are online. "
            f"{voters // 2 + 1} of {voters} managers must be; not heard from: {', '.join(silent) or 'none'}"
        )


def _never_arrived(error: grpc.aio.AioRpcError) -> bool:
    """Whether the leader can't have seen the call, so that sending it again does it once."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    details = (error.details() or "").lower()
    return any(words in details for words in ("failed to connect", "not the leader", "connection refused"))
