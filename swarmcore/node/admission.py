"""How many connections there may be, so that no stranger takes what nodes, or the process itself, need."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

log = logging.getLogger("swarmcore.node")

CONNECTIONS_PER_ADDRESS = 1024
CONNECTIONS = 20_000
WARNING_SECONDS = 1.0
IPV6_PREFIX = 64

K = TypeVar("K")


class Admission:
    """Counts the connections of one front. Loopback addresses are counted, and not limited by address."""

    def __init__(
        self,
        *,
        per_address: int = CONNECTIONS_PER_ADDRESS,
        in_all: int = CONNECTIONS,
        per_target: Mapping[Path, int] | None = None,
    ) -> None:
        """`per_target`: how many may go on to a listener; one without a number takes all that there may be."""
        self._per_address = per_address
        self._in_all = in_all
        self.silent = max(1, in_all // 4)
        """How many may have said nothing yet. A node speaks at once, so the front drops the oldest for a new one."""
        self._per_target = dict(per_target or {})
        self._open = 0
        self._by_origin: Counter[str] = Counter()
        self._by_target: Counter[Path] = Counter()
        self._quiet_until = 0.0

    def enter(self, address: str) -> bool:
        """Count a connection; False where there are too many, in all or of its address."""
        if self._open >= self._in_all:
            self._warn(f"{self._in_all} connections are open: refusing another, of {address or 'this machine'}")
            return False
        origin = origin_of(address)
        if origin and self._by_origin[origin] >= self._per_address:
            self._warn(f"{origin} has {self._per_address} connections already: refusing another")
            return False
        self._open += 1
        self._by_origin[origin] += 1
        return True

    def enter_target(self, target: Path, address: str) -> bool:
        """Count a connection to a listener; False where that one has too many."""
        most = self._per_target.get(target, self._in_all)
        if self._by_target[target] >= most:
            self._warn(f"{most} connections without a certificate are open: refusing another, of {address}")
            return False
        self._by_target[target] += 1
        return True

    def leave(self, address: str, target: Path | None) -> None:
        """Forget a connection that was let in."""
        self._open -= 1
        _take_one(self._by_origin, origin_of(address))
        if target is not None:
            _take_one(self._by_target, target)

    def _warn(self, text: str) -> None:
        """Not for each connection: a stranger would fill the disk with lines."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + WARNING_SECONDS
            log.warning("%s", text)


def origin_of(address: str) -> str:
    """What connections are counted by; empty for this machine itself.

    IPv6 addresses count by their network, since one machine has a whole one.
    """
    if not address:
        return ""
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback:
        return ""
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return address


def _take_one(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
