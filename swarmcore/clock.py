"""Time as an argument: what drivers read the clock and wait with, so that tests can simulate both."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks and a way to wait. Delays are measured on `monotonic`, which no one sets back."""

    def now(self) -> float:
        """Seconds since the epoch, for what is written down."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, for delays and deadlines."""
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Return when `monotonic` has reached `deadline`, at once when it has already."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep_until(self, deadline: float) -> None:
        await asyncio.sleep(max(0.0, deadline - time.monotonic()))
