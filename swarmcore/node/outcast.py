"""A manager that is none any more and was not told: it was away when it was demoted, or lost its leader at that moment.

The others refuse what it sends, and the session that would bring the news needs a leader. So it asks one of them for a
new certificate, which says what it is now.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from swarmcore.agent.remotes import Remotes
from swarmcore.ca.renewal import Renewer
from swarmcore.ca.security import SecurityConfig
from swarmcore.clock import Clock
from swarmcore.errors import SwarmError, UnavailableError
from swarmcore.manager.manager import Manager
from swarmcore.node.connections import control_channel

log = logging.getLogger("swarmcore.node")

LOOK_SECONDS = 5.0
ASK_AGAIN_SECONDS = 60.0


class RemovedManagerError(SwarmError):
    """The cluster has removed this node. What is left to do is a worker's part."""


class CertificateWay:
    """How a manager reaches whoever signs: the leader, itself, or any other manager."""

    def __init__(self, manager: Manager, security: SecurityConfig, control: Path, remotes: Remotes) -> None:
        self._manager = manager
        self._security = security
        self._control = control
        self._remotes = remotes
        self._turns = itertools.count()
        self.is_serving = False
        """Whether the own control socket answers."""
        self.is_outcast = False
        """Whether the others refuse this manager, so that it can't speak through itself."""

    async def open_channel(self) -> grpc.aio.Channel:
        """A channel on which this node may ask for a certificate. Raises UnavailableError where nobody is known."""
        if not self.is_outcast:
            if self._manager.leader_address:
                # A manager that was demoted can't speak through itself any more, only for itself.
                return self._security.open_channel(self._manager.leader_address)
            if self.is_serving:
                return control_channel(self._control)
        other = self.pick()
        if not other:
            raise UnavailableError("no other manager is known")
        return self._security.open_channel(other)

    def pick(self) -> str:
        """The address of another manager, in turns; empty where none is known."""
        others = self._others()
        return others[next(self._turns) % len(others)] if others else ""

    def _others(self) -> list[str]:
        """Addresses of the other managers, as the log and this node's agent know them."""
        members = [each.address for each in self._manager.replica.members() if each.node_id != self._security.node_id]
        known = [peer.addr for peer in self._remotes.weights if peer.node_id != self._security.node_id]
        return list(dict.fromkeys(filter(None, (*members, *known))))

    async def notice(self, renewer: Renewer, clock: Clock, is_removed: Callable[[], Awaitable[bool]]) -> None:
        """Have the certificate renewed whenever the others refuse this manager for a while. Ends when cancelled.

        Raises RemovedManagerError where `is_removed`: there is no certificate for it any more then.
        """
        was_refused, known = False, self._manager.refusals
        while True:
            await clock.sleep_until(clock.monotonic() + LOOK_SECONDS)
            # One refusal alone may come of a store that has not heard of this manager yet.
            is_refused, known = self._manager.refusals != known, self._manager.refusals
            if (is_refused and was_refused) or self._manager.was_removed:
                log.warning("the other managers refuse this one: asking them what it is now")
                self.is_outcast = True
                renewer.force()
                if await is_removed():
                    raise RemovedManagerError("this manager was removed from the cluster")
                await clock.sleep_until(clock.monotonic() + ASK_AGAIN_SECONDS)
                self.is_outcast = False
            was_refused = is_refused
