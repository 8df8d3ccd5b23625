"""How a manager gets into the group of the others, the first time."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.caller import Caller
from swarmcore.api.raft_pb2_grpc import RaftStub
from swarmcore.clock import Clock
from swarmcore.errors import ConfigurationError, InvalidArgumentError
from swarmcore.replication.replica import Replica

log = logging.getLogger("swarmcore.manager")

CALL_SECONDS = 15.0
RETRY_SECONDS = 1.0
TRIES = 30


async def join_group(
    managers: Sequence[str], address: str, dial: Callable[[str], grpc.aio.Channel], clock: Clock
) -> pb.RaftJoinResponse:
    """Ask one manager after the other, for half a minute. Raises ConfigurationError with the last one's words."""
    reason = "no manager is known"
    for number in range(TRIES):
        for manager in managers:
            try:
                return await _ask(manager, address, dial)
            except grpc.aio.AioRpcError as error:
                reason = f"{manager}: {' '.join((error.details() or error.code().name).split())}"
            except TimeoutError:
                reason = f"{manager} does not answer"
            if number == 0:
                log.info("joining the managers: %s; trying again", reason)
        await clock.sleep_until(clock.monotonic() + RETRY_SECONDS)
    raise ConfigurationError(f"could not join the group of managers ({reason}): start again when a leader is there")


async def _ask(
    manager: str, address: str, dial: Callable[[str], grpc.aio.Channel], raft_id: int = 0
) -> pb.RaftJoinResponse:
    channel = dial(manager)
    try:
        async with asyncio.timeout(CALL_SECONDS):
            stub: Any = RaftStub(channel)
            answer: pb.RaftJoinResponse = await stub.Join(pb.RaftJoinRequest(addr=address, raft_id=raft_id))
            return answer
    finally:
        await channel.close()


async def keep_address_known(
    replica: Replica, address: str, dial: Callable[[str], grpc.aio.Channel], clock: Clock
) -> None:
    """Have the others told where this manager is, until cancelled.

    They look for it where it was the last time. Who moved hears nothing from them, so it has to ask.
    """
    while True:
        await clock.sleep_until(clock.monotonic() + RETRY_SECONDS)
        members = replica.membership.members
        known = members.get(replica.raft_id)
        if known is None or known.address == address or replica.term:
            continue  # a leader writes its own address into the log
        for other in members.values():
            if other.id == replica.raft_id:
                continue
            with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError):
                await _ask(other.address, address, dial, replica.raft_id)
                log.info("the other managers are told that this one is at %s now, not at %s", address, known.address)
                break


def reachable_address(address: str, caller: Caller) -> str:
    """The address that a joining manager names, with the one it calls from in the place of "any" (SwarmKit: 11.3)."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise InvalidArgumentError(f"addr {address!r} is no address: write it like 10.1.1.1:4242")
    bare = host.strip("[]")
    try:
        is_any = not bare or ipaddress.ip_address(bare).is_unspecified
    except ValueError:
        is_any = False
    if not is_any:
        return address
    if not caller.remote_addr:
        raise InvalidArgumentError("addr: names no host, and the caller's own is not known")
    return f"[{caller.remote_addr}]:{port}" if ":" in caller.remote_addr else f"{caller.remote_addr}:{port}"
