"""Renews a node's certificate: at a moment between half and four fifths of its life, and when the cluster says so.

Run by the node for as long as it lives (SwarmKit: 10.5). Never gives up: a failure is logged and tried again, later
each time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from math import ceil

import grpc

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import IssuanceStatus, NodeRole
from swarmcore.ca.security import Material, SecurityConfig
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import SwarmError

log = logging.getLogger("swarmcore.ca")

FIRST_SHARE = 0.5
LAST_SHARE = 0.8
FORCED_PAUSE_SECONDS = 0.5
BASE_BACKOFF_SECONDS = 5.0
MAX_BACKOFF_SECONDS = 3600.0
LOOK_AGAIN_SECONDS = 600.0
"""The wall clock can be set, and stands still for nobody: how long to trust one look at it."""
MINUTE = 60.0

OpenChannel = Callable[[], Awaitable[grpc.aio.Channel]]


def renewal_moment(not_before: float, not_after: float, chance: float) -> float:
    """When to renew: a whole minute of the certificate's life in [50 %, 80 %), by `chance` in [0, 1)."""
    minutes = (not_after - not_before) / MINUTE
    first, last = ceil(minutes * FIRST_SHARE), ceil(minutes * LAST_SHARE)
    return not_before + MINUTE * (first + int(chance * max(1, last - first)))


def backoff(failures: int) -> float:
    """Seconds to wait after that many failures in a row: 5, 10, 20 … 3600."""
    return min(BASE_BACKOFF_SECONDS * 2.0 ** min(max(0, failures - 1), 16), MAX_BACKOFF_SECONDS)


class Renewer:
    """Keeps one node's certificate fresh and in step with the role that the cluster wants it in."""

    def __init__(
        self,
        security: SecurityConfig,
        *,
        open_channel: OpenChannel,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`open_channel`, called for each try: to the own control socket, or `security.open_channel(address)`."""
        self._security = security
        self._open_channel = open_channel
        self._clock = clock or SystemClock()
        self._chance = chance
        self._wake = asyncio.Event()
        self._is_forced = False
        self._expected_role: NodeRole.ValueType | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._planned_for: Material | None = None
        self._planned = 0.0
        security.when_new_key_is_wanted(self.force)

    def node_changed(self, node: Node) -> None:
        """The cluster sent this node's own object: renew where it wants another role, or another certificate."""
        wanted = node.spec.desired_role
        if wanted != self._security.role:
            if self._expected_role != wanted:
                self._expected_role = wanted
                self.force()
        else:
            self._expected_role = None
        if node.certificate.status.state == IssuanceStatus.ROTATE:
            self.force()

    def force(self) -> None:
        """Renew now, whatever the certificate's age."""
        self._is_forced = True
        self._failures = 0
        self._wake.set()

    async def run(self) -> None:
        """Renew whenever it is time, until cancelled."""
        while True:
            await self._wait_due()
            await self._renew()

    async def _wait_due(self) -> None:
        while not self._is_forced:
            delay = self._delay()
            if delay <= 0:
                return
            await self._sleep(min(delay, LOOK_AGAIN_SECONDS))
        self._is_forced = False
        await self._clock.sleep_until(self._clock.monotonic() + FORCED_PAUSE_SECONDS)

    def _delay(self) -> float:
        """Seconds until the next try, unless it is forced before."""
        if self._failures:
            return self._retry_at - self._clock.monotonic()
        material = self._security.material
        if self._planned_for is not material:
            self._planned_for = material
            self._planned = renewal_moment(material.not_before, material.not_after, self._chance())
        return self._planned - self._clock.now()

    async def _sleep(self, seconds: float) -> None:
        """Wait, or less when `force` is called."""
        self._wake.clear()
        waits = (
            asyncio.ensure_future(self._clock.sleep_until(self._clock.monotonic() + seconds)),
            asyncio.ensure_future(self._wake.wait()),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _renew(self) -> None:
        try:
            await self._security.renew(self._open_channel)
        except SwarmError as error:
            self._failed()
            log.warning("can't renew the certificate: %s; next try in %.0f s", error, backoff(self._failures))
        except Exception:  # the supervisor: a bug in one try must not end the renewer
            self._failed()
            log.exception("renewing the certificate failed")
        else:
            if self._expected_role is not None and self._security.role != self._expected_role:
                # The cluster changes the role when it is safe to; until then it signs the old one again.
                self._failed()
            else:
                self._expected_role = None
                self._failures = 0

    def _failed(self) -> None:
        self._failures += 1
        self._retry_at = self._clock.monotonic() + backoff(self._failures)
