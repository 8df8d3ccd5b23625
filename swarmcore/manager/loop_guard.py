"""Sees from outside that the event loop is blocked, and says by what: a thread that only looks at a clock.

A blocked loop can't say so itself: no heartbeat leaves, other managers elect another leader, and the log shows nothing.
Plugin code that blocks where it was to await is the usual cause, and its stack is the answer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Final

log = logging.getLogger("swarmcore.manager")

BEAT_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.25
FRAMES: Final = 12
"""Innermost frames that are shown."""


class LoopGuard:
    """Watches the loop that `run` runs on. One thread, which ends with `run`."""

    def __init__(self, blocked_seconds: float = 1.0) -> None:
        """A loop that takes no turn for so long is blocked: one election timeout, after which others may lead."""
        self._blocked_seconds = blocked_seconds
        self._beat = 0.0
        self._ended = threading.Event()
        self.blocks = 0
        """How often the loop was found blocked."""
        self.longest_seconds = 0.0
        """The longest of those times."""

    async def run(self) -> None:
        """Watch until cancelled."""
        self._beat = time.monotonic()
        self._ended.clear()
        thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="loop guard", daemon=True)
        thread.start()
        try:
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                self._beat = time.monotonic()
        finally:
            self._ended.set()
            thread.join()

    def _watch(self, loop_thread: int) -> None:
        said_of = 0.0
        looked = time.monotonic()
        while not self._ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            # Where this thread got no turn either the whole process stood still, and the loop's stack tells nothing.
            stood_still = now - looked > 2 * LOOK_SECONDS + BEAT_SECONDS
            looked = now
            beat = self._beat
            if said_of and beat != said_of:
                self._over(beat - said_of)
                said_of = 0.0
            elif beat != said_of and not stood_still and now - beat > self._blocked_seconds:
                said_of = beat
                self._say(now - beat, sys._current_frames().get(loop_thread))
        if said_of:
            self._over(time.monotonic() - said_of)

    def _say(self, seconds: float, frame: FrameType | None) -> None:
        self.blocks += 1
        stack = traceback.extract_stack(frame)[-FRAMES:] if frame is not None else []
        log.error(
            "the event loop has been blocked for %.1f s, and this manager can do nothing meanwhile. It is at:\n%s",
            seconds,
            "".join(traceback.format_list(stack)).rstrip(),
        )

    def _over(self, seconds: float) -> None:
        self.longest_seconds = max(self.longest_seconds, seconds)
        log.warning("the event loop goes on, after %.1f s", seconds)
