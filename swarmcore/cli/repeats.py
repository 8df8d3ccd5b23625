"""Keeps a log readable, and its disk from filling, while something fails over and over."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

QUIET_SECONDS = 60.0
REMEMBERED = 1024


@dataclass(slots=True)
class _Said:
    at: float
    held_back: int = 0


class Repeats(logging.Filter):
    """For a handler: a warning or an error in the very same words comes once a minute, and then says how often."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._said: OrderedDict[tuple[str, str], _Said] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now, text = self._now(), record.getMessage()
        said = self._said.get((record.name, text))
        if said is not None and now - said.at < QUIET_SECONDS:
            said.held_back += 1
            return False
        if said is not None and said.held_back:
            record.msg, record.args = f"{text} ({said.held_back} times more since the last line)", ()
        self._said[record.name, text] = _Said(now)
        self._said.move_to_end((record.name, text))
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        return True
