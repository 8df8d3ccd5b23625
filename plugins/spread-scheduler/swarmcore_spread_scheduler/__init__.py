"""Spreads tasks over nodes, with placement preferences; binpack beside it."""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.plugin import hookimpl
from swarmcore.plugin.scheduling import Strategy
from swarmcore_spread_scheduler.binpack import BinpackStrategy
from swarmcore_spread_scheduler.spread import SpreadStrategy


@hookimpl
def swarmcore_scheduler_strategies() -> Sequence[Strategy]:
    return [SpreadStrategy(), BinpackStrategy()]


__all__ = ["BinpackStrategy", "SpreadStrategy"]
