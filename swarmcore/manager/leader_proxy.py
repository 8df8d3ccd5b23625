"""The way from a manager that follows to the one that leads: a connection kept, a wait for a leader bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from swarmcore.api.channels import connected
from swarmcore.api.metadata import NOT_DONE
from swarmcore.ca.forwarding import (
    READ_PATIENCE_SECONDS,
    BecameLeader,
    Metadata,
    NoLeaderError,
    is_read,
    outcome,
)
from swarmcore.ca.security import SecurityConfig
from swarmcore.clock import Clock
from swarmcore.errors import LostLeadershipError, UnavailableError
from swarmcore.replication.replica import Replica

LEADER_SECONDS = 4.5
LOOK_SECONDS = 0.02
CONNECT_SECONDS = 1.0
WATCH_SECONDS = 0.1
_UNKNOWN = "the leader went away while it worked on this: look whether it was done before you ask again"


class LeaderProxy:
    """Satisfies `ca.forwarding.Forwarder`."""

    def __init__(self, replica: Replica, security: SecurityConfig, clock: Clock) -> None:
        self._replica = replica
        self._security = security
        self._clock = clock
        self._led = clock.monotonic()
        """When there was a leader the last time, as far as `run` saw."""
        self._channel: grpc.aio.Channel | None = None
        self._dialled: tuple[str, int] | None = None
        """The address, and which of this manager's certificates is shown there."""
        self._calls: dict[grpc.aio.Channel, set[Any]] = {}
        """What is under way, by connection."""
        self._replaced: set[grpc.aio.Channel] = set()
        """Connections that end when the calls on them are over."""

    @property
    def is_leader(self) -> bool:
        return self._replica.term != 0

    async def run(self) -> None:
        """End what is under way at a manager that leads no more, until cancelled: it may hang, and never answer."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + WATCH_SECONDS)
            channel, leader = self._channel, self._replica.leader
            if leader is not None:
                self._led = self._clock.monotonic()
            dialled, _ = self._dialled or ("", 0)
            if channel is not None and leader is not None and leader.address != dialled:
                await self._drop(channel)

    def leaderless_seconds(self) -> float:
        """For how long this manager has known no leader; 0 while it knows one."""
        return 0.0 if self._replica.leader is not None else self._clock.monotonic() - self._led

    def _read_deadline(self) -> float:
        """Until when a read waits for a leader; not at all where there has been none for so long already."""
        now = self._clock.monotonic()
        since = now if self._replica.leader is not None else self._led
        return max(now, since + READ_PATIENCE_SECONDS)

    async def unary(self, method: str, request: bytes, metadata: Metadata, timeout: float | None) -> bytes:
        """The leader's answer. What did nothing at a leader is tried again with the next one, for 4.5 s in all."""
        deadline = self._read_deadline() if is_read(method) else self._clock.monotonic() + LEADER_SECONDS
        while True:
            channel = await self._leader(deadline)
            invoke: Any = channel.unary_unary(method)
            call = invoke(request, metadata=metadata, timeout=timeout)
            self._begun(channel, call)
            try:
                return bytes(await call)
            except grpc.aio.AioRpcError as error:
                # An answer is this call's alone, also when it is an error: the connection carries everybody's.
                said = outcome(error)
                is_broken = not said and error.code() is grpc.StatusCode.UNAVAILABLE
                if said != NOT_DONE and not is_broken:
                    raise
                if is_broken:
                    await self._drop(channel)
                    if not (_never_arrived(error) or is_read(method)):
                        raise LostLeadershipError(_UNKNOWN) from None
            except asyncio.CancelledError:
                if not _is_cut(call):
                    raise
                if not is_read(method):
                    raise LostLeadershipError(_UNKNOWN) from None
            finally:
                await self._over(channel, call)
            if self._clock.monotonic() >= deadline:
                raise NoLeaderError(self._why_none()) from None
            await self._pause()

    async def stream(
        self, method: str, request: bytes | AsyncIterator[bytes], metadata: Metadata
    ) -> AsyncIterator[bytes]:
        """The leader's answers until it ends them, or stops leading: then callers come again."""
        channel = await self._leader(self._clock.monotonic() + LEADER_SECONDS)
        # On the wire, one answer is a stream of one.
        invoke: Any = channel.unary_stream(method) if isinstance(request, bytes) else channel.stream_stream(method)
        call = invoke(request, metadata=metadata)
        self._begun(channel, call)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            if outcome(error) or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            raise UnavailableError("the connection to the leading manager broke") from None
        except asyncio.CancelledError:
            if not _is_cut(call):
                raise
            # Said in words: a server whose answer ends in a cancellation tells its caller nothing.
            raise UnavailableError("the connection to the leader was renewed: call again") from None
        finally:
            await self._over(channel, call)

    async def aclose(self) -> None:
        channels = {*self._replaced, *([self._channel] if self._channel is not None else [])}
        self._channel = None
        self._replaced.clear()
        for channel in channels:
            await self._close(channel)

    async def _leader(self, deadline: float) -> grpc.aio.Channel:
        """A channel to the leader, connected. Raises UnavailableError where none appears in time, and BecameLeader."""
        while True:
            if self._replica.term:
                raise BecameLeader
            leader = self._replica.leader
            if leader is not None and leader.id != self._replica.raft_id:
                channel = await self._channel_to(leader.address)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(CONNECT_SECONDS):
                        await connected(channel)
                        return channel
                await self._drop(channel)
            if self._clock.monotonic() >= deadline:
                raise NoLeaderError(self._why_none())
            await self._pause()

    async def _pause(self) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + LOOK_SECONDS)

    async def _channel_to(self, address: str) -> grpc.aio.Channel:
        wanted = (address, self._security.serial)
        old = self._channel
        if old is not None and self._dialled == wanted:
            return old
        before = self._dialled[0] if self._dialled is not None else ""
        channel = self._channel = self._security.open_watched_channel(address)
        self._dialled = wanted
        if old is not None:
            await self._replace(old, is_elsewhere=before != address)
        return channel

    async def _replace(self, old: grpc.aio.Channel, *, is_elsewhere: bool) -> None:
        """Close a connection: at once to a manager that leads no more, else when the calls on it are over.

        A new certificate is no reason to lose a write's answer, or an agent's session.
        """
        if is_elsewhere or not self._calls.get(old):
            await self._close(old)
        else:
            self._replaced.add(old)

    def _begun(self, channel: grpc.aio.Channel, call: Any) -> None:
        self._calls.setdefault(channel, set()).add(call)

    async def _over(self, channel: grpc.aio.Channel, call: Any) -> None:
        call.cancel()
        calls = self._calls.get(channel)
        if calls is None:
            return
        calls.discard(call)
        if not calls:
            del self._calls[channel]
            if channel in self._replaced:
                self._replaced.discard(channel)
                await channel.close()

    async def _close(self, channel: grpc.aio.Channel) -> None:
        """End the calls, then the connection: gRPC forgets those that nobody awaits at that moment."""
        for call in self._calls.pop(channel, ()):
            call.cancel()
        await channel.close()

    async def _drop(self, channel: grpc.aio.Channel) -> None:
        """Connect anew the next time, at once, where gRPC would wait before it tries again."""
        if self._channel is channel:
            self._channel = None
        await self._close(channel)

    def _why_none(self) -> str:
        missing = self._replica.who_is_missing()
        return f"The swarm does not have a leader. It's possible that too few managers are online. {missing}"


def _never_arrived(error: grpc.aio.AioRpcError) -> bool:
    """Whether there was no connection to send the call over, so that sending it again does it once."""
    details = (error.details() or "").lower()
    return any(words in details for words in ("failed to connect", "connection refused"))


def _is_cut(call: Any) -> bool:
    """Whether a call ended in a cancellation because its connection was closed, and not its caller."""
    task = asyncio.current_task()
    return bool(call.cancelled()) and task is not None and not task.cancelling()
