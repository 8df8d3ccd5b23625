"""How plugins behave at work: calls counted, times sampled, and a breaker for those that raise.

Written by whoever calls plugin code (the scheduler's thread, the loop), read by `swarmctl plugins`. Costs well under
a microsecond a call.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable

from swarmcore.errors import UnavailableError

FAILURES_TO_OPEN = 5
FAILURE_WINDOW_SECONDS = 60.0
PROBE_SECONDS = 30.0
SAMPLES = 512
MAX_TRACEBACK = 16_384


class PluginFailingError(UnavailableError):
    """The plugin raised too often and is not asked now; the next probe comes within 30 s."""


class Breaker:
    """Opens when one plugin raised five times in a minute; lets one probe through each 30 s; closes on its success."""

    __slots__ = ("_failures", "_last_probe", "last_error", "last_traceback", "opened")

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=FAILURES_TO_OPEN)
        self._last_probe = 0.0
        self.opened = False
        self.last_error = ""
        self.last_traceback = ""

    def allows(self, now: float) -> bool:
        """Whether the plugin may be called at `now` (seconds, monotonic). An open breaker counts this as its probe."""
        if not self.opened:
            return True
        if now - self._last_probe < PROBE_SECONDS:
            return False
        self._last_probe = now
        return True

    def succeeded(self) -> None:
        """A call returned. Closes the breaker."""
        if self.opened:
            self.opened = False
            self._failures.clear()

    def failed(self, error: BaseException, where: str, now: float) -> None:
        """A call raised `error` inside `where`."""
        self.last_error = f"{one_line(error)} in {where}"
        self.last_traceback = text_of(error)
        self._failures.append(now)
        recent = len(self._failures) == FAILURES_TO_OPEN and now - self._failures[0] <= FAILURE_WINDOW_SECONDS
        if recent and not self.opened:
            self.opened = True
            self._last_probe = now


class Meter:
    """Calls of one capability: how many, and how long the sampled ones took."""

    __slots__ = ("_next", "_samples", "breaker", "calls", "capability")

    def __init__(self, capability: str, breaker: Breaker) -> None:
        self.capability = capability
        self.breaker = breaker
        self.calls = 0
        self._samples: list[float] = []
        self._next = 0

    def count(self, calls: int, seconds: float | None = None) -> None:
        """Add `calls`; `seconds` is what one of them took, where it was timed."""
        self.calls += calls
        if seconds is None:
            return
        if len(self._samples) < SAMPLES:
            self._samples.append(seconds)
        else:
            self._samples[self._next % SAMPLES] = seconds
            self._next += 1

    @property
    def p99(self) -> float | None:
        """Seconds that 99 of 100 timed calls stayed within; None where none was timed."""
        samples = sorted(self._samples)
        return samples[int(len(samples) * 0.99)] if samples else None


class Guard:
    """One call into a plugin: asks the breaker, counts, times, and remembers what was raised.

    `with Guard(meter, "decide"): …` raises PluginFailingError where the breaker is open, and lets what the plugin
    raised pass through.
    """

    __slots__ = ("_clock", "_meter", "_start", "_where")

    def __init__(self, meter: Meter, where: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter = meter
        self._where = where
        self._clock = clock
        self._start = 0.0

    def __enter__(self) -> None:
        breaker = self._meter.breaker
        if breaker.opened and not breaker.allows(self._clock()):
            raise PluginFailingError(f"{self._meter.capability} is failing: {breaker.last_error}")
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._meter.count(1, time.perf_counter() - self._start)
        if error is None:
            if self._meter.breaker.opened:
                self._meter.breaker.succeeded()
        elif isinstance(error, Exception):
            self._meter.breaker.failed(error, self._where, self._clock())


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and the first line of its text."""
    text = str(error).strip()
    name = type(error).__name__
    return f"{name}: {text.splitlines()[0][:400]}" if text else name


def text_of(error: BaseException) -> str:
    """The traceback of an exception, bounded."""
    return "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
