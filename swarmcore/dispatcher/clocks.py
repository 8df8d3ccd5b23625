"""Nodes whose clock is far from the leader's: certificates, logs and `created 3 hours ago` are wrong there.

Own agents send their time with each heartbeat; stock ones don't, and nothing is known of their clocks. Pure.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from swarmcore.api.metadata import TIME

SKEW_SECONDS = 30.0
GOOD_SECONDS = 15.0
"""A warning ends when the clocks are closer than this, so that it does not come and go."""
MAX_TEXT = 32

_log = logging.getLogger("swarmcore.dispatcher")


def time_in(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """The caller's time, in seconds since the epoch; None where it sends none that can be read."""
    text = next((value for key, value in metadata if key == TIME), "")
    if not isinstance(text, str) or not text or len(text) > MAX_TEXT:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


class ClockWatch:
    """What one term knows of the nodes' clocks."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        """The skew of each node that was warned about, in seconds; positive: its clock is ahead."""

    def heard(self, node_id: str, name: str, theirs: float, now: float) -> str | None:
        """What the node's status is to say now; None where that stays as it is. A heartbeat's way counts as skew."""
        skew = theirs - now
        said = self._said.get(node_id)
        if said is None:
            if abs(skew) < SKEW_SECONDS:
                return None
        elif abs(skew) < GOOD_SECONDS:
            del self._said[node_id]
            _log.info("the clock of node %s is right again", name)
            return ""
        elif abs(skew - said) < SKEW_SECONDS:
            return None
        self._said[node_id] = skew
        way = "ahead of" if skew > 0 else "behind"
        message = f"its clock is {_rough(abs(skew))} {way} the leader's: set both by NTP"
        _log.warning("node %s: %s", name, message)
        return message

    def forget(self, node_id: str) -> None:
        """The node registers anew, and its status says nothing any more, or it is gone."""
        self._said.pop(node_id, None)


def _rough(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
