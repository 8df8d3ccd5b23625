"""The brake: when many nodes are gone at once their tasks are held instead of replaced. Its setting, and its mark.

The setting is a label of the cluster, and the mark is the beginning of a DOWN node's status message: both are
replicated, and nothing of SwarmKit's wire is changed. Whoever knows neither shows them as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import NodeStatus

LABEL: Final = "swarmcore.brake"
"""Of the cluster's spec."""
RELEASE: Final = "release"
"""In the place of a setting: let everything go that is held now, and keep the setting."""
MARK: Final = "heartbeat failure; held by the brake"
RELEASED: Final = "heartbeat failure"
"""What stands there once it is let go."""
OFF: Final = "off"
MAX_SECONDS: Final = 365 * 24 * 3600.0

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")
_USAGE = "write it like share=50,window=1m,wait=10m,nodes=3, or off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """When tasks are held, and for how long."""

    is_on: bool = True
    share: float = 0.5
    """It is put on when more than this share of the nodes that were up are gone."""
    window_seconds: float = 60.0
    """Nodes that went down within this time count together."""
    wait_seconds: float = 600.0
    """Tasks are held for so long at most; 0 is until somebody says otherwise."""
    nodes: int = 3
    """Fewer lost nodes never put it on: in a small cluster one is always a large share."""

    def __str__(self) -> str:
        if not self.is_on:
            return OFF
        wait, window = duration_text(self.wait_seconds), duration_text(self.window_seconds)
        return f"share={self.share * 100:g},window={window},wait={wait},nodes={self.nodes}"


DEFAULT: Final = Brake()


def parse_brake(text: str) -> Brake:
    """Read a setting; what it does not name has its default. Raises ValueError in one line."""
    text = text.strip()
    if text in ("", "on", "default"):
        return DEFAULT
    if text == OFF:
        return Brake(is_on=False)
    given: dict[str, str] = {}
    for part in text.split(","):
        key, is_pair, value = (each.strip() for each in part.partition("="))
        if not is_pair or key in given or key not in ("share", "window", "wait", "nodes"):
            raise ValueError(f"{part.strip()!r} is no setting of the brake: {_USAGE}")
        given[key] = value
    share = _number(given.get("share", "50").removesuffix("%"), "share", 1, 99) / 100
    return Brake(
        share=share,
        window_seconds=_seconds(given.get("window", "1m"), "window", at_least=1.0),
        wait_seconds=_seconds(given.get("wait", "10m"), "wait", at_least=0.0),
        nodes=_number(given.get("nodes", "3"), "nodes", 1, 1_000_000),
    )


def _number(text: str, key: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 7 or not least <= int(text) <= most:
        raise ValueError(f"the brake's {key} is a whole number from {least} to {most}, and not {text!r}")
    return int(text)


def _seconds(text: str, key: str, *, at_least: float) -> float:
    match = _DURATION.fullmatch(text)
    if text == "0":
        seconds = 0.0
    elif match is None or not text:
        raise ValueError(f"the brake's {key} is a duration like 90s, 10m or 1h30m, and not {text!r}")
    else:
        hours, minutes, rest = (int(each or 0) for each in match.groups())
        seconds = 3600.0 * hours + 60.0 * minutes + rest
    if not at_least <= seconds <= MAX_SECONDS:
        raise ValueError(f"the brake's {key} is from {at_least:g}s to a year, and not {text!r}")
    return seconds


def duration_text(seconds: float) -> str:
    """`1h30m`, `10m`, `0`: as `parse_brake` reads it."""
    whole = int(seconds)
    parts = [f"{whole // 3600}h", f"{whole % 3600 // 60}m", f"{whole % 60}s"]
    return "".join(part for part in parts if int(part[:-1])) or "0"


def is_held(node: Node | None) -> bool:
    """Whether the node is down and its tasks stay what they are."""
    return node is not None and node.status.state == NodeStatus.DOWN and node.status.message.startswith(MARK)
