"""Tells the managers of a group that was replaced that it was, wherever they come back.

Runs while leading, in a group that was made anew. Members of the old one could be a majority among themselves and know
nothing of this one, which may be at another address. So they are looked for where they were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from swarmcore.api.raft_pb2 import RaftReplacedNotice
from swarmcore.api.raft_pb2_grpc import RaftStub
from swarmcore.ca.notice import sign_notice
from swarmcore.clock import Clock
from swarmcore.raft.membership import Membership
from swarmcore.store.store import LeaderStore

log = logging.getLogger("swarmcore.manager")

CALL_SECONDS = 5.0
PAUSES = (1.0, 5.0, 15.0)
PAUSE = 30.0


class Group(Protocol):
    """What is asked of the replica."""

    @property
    def membership(self) -> Membership: ...
    @property
    def raft_id(self) -> int: ...


class FormerMembers:
    """A leader component."""

    name = "former-members"

    def __init__(self, group: Group, cluster_id: str, dial: Callable[[str], grpc.aio.Channel], clock: Clock) -> None:
        """`dial` makes a channel that trusts this cluster's managers and shows no certificate."""
        self._group = group
        self._cluster_id = cluster_id
        self._dial = dial
        self._clock = clock

    async def run(self, store: LeaderStore) -> None:
        for number in range(1 << 62):
            membership = self._group.membership
            cluster = store.view.cluster.get(self._cluster_id)
            here = {member.address for member in membership.members.values()}
            gone = [address for address in membership.former if address not in here]
            if not gone:
                await asyncio.Event().wait()
            if cluster is not None and cluster.root_ca.ca_key:
                await asyncio.gather(*(self._tell(address, membership, cluster.root_ca.ca_key) for address in gone))
            pause = PAUSES[number] if number < len(PAUSES) else PAUSE
            await self._clock.sleep_until(self._clock.monotonic() + pause)

    async def _tell(self, address: str, membership: Membership, root_key: bytes) -> None:
        """Tell who is at `address`, once for each group that it may still be in. Nobody being there is as it should."""
        own = membership.members.get(self._group.raft_id)
        channel = self._dial(address)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                stub: Any = RaftStub(channel)
                for old in reversed(membership.replaced):
                    notice = RaftReplacedNotice(
                        old_group=old, new_group=membership.group, addr=own.address if own is not None else ""
                    )
                    sign_notice(notice, self._cluster_id, root_key)
                    if (await stub.Replaced(notice)).is_leaving:
                        log.warning("the manager at %s was still in the group that this one replaced: it ends", address)
                        return
        except (grpc.aio.AioRpcError, TimeoutError):
            return
        finally:
            await channel.close()
