"""The streams that agents hold open, and the pump that wakes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from swarmcore.clock import Clock
from swarmcore.dispatcher.assignments import AssignmentSet
from swarmcore.errors import SwarmError

IDLE_STREAMS = 8
SECONDS_PER_STREAM = 0.002
"""How long changes may gather for each stream that waits: a message and the report that answers it cost the manager
as much as the writes of ten tasks."""
MAX_GATHER = 2.0
GATHER_STEPS = 20
MAX_STEP = 0.02
WAKES_PER_TURN = 16

Ending = Callable[[], SwarmError]


@dataclass(slots=True, eq=False)
class Stream:
    """One stream of one session, owned by the RPC handler that made it."""

    handler: asyncio.Task[object] | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_dirty: bool = False
    is_queued: bool = False
    ending: Ending | None = None

    def end(self, ending: Ending) -> None:
        """Have the handler raise this as soon as it can. The first reason counts."""
        if self.ending is None:
            self.ending = ending
        self.wake.set()

    async def wait(self) -> bool:
        """Wait until there is something to send (True) or the stream has to end (False)."""
        while not self.is_dirty and self.ending is None:
            self.wake.clear()
            await self.wake.wait()
        self.is_dirty = False
        return self.ending is None


@dataclass(slots=True, eq=False)
class AssignmentStream(Stream):
    """A stream of assignments, with what its node was told."""

    assigned: AssignmentSet = field(kw_only=True)


@dataclass(slots=True, eq=False)
class Session:
    """One registration of one node. At most one stream of each kind: a newer one ends the older."""

    node_id: str
    id: str
    sent_version: int = 0
    """Version of the node object in the last session message."""
    streams: dict[str, Stream] = field(default_factory=dict)
    ending: Ending | None = None

    def release(self, stream: Stream) -> None:
        """The stream's handler ends."""
        for kind in [kind for kind, held in self.streams.items() if held is stream]:
            del self.streams[kind]

    def end(self, ending: Ending) -> None:
        """End the session and its streams."""
        self.ending = ending
        for stream in self.streams.values():
            stream.end(ending)


class Pump:
    """Wakes streams that have something to send, a few in each turn of the loop.

    While few streams wait, they go at once. Else the pump lets changes gather: while tasks are known to be coming
    (made, without a node yet), and until nothing comes for a moment (a twentieth of the time allowed, at most 20 ms).
    So in a rush each node gets one large message, or few, not one a change, and answers each with one report; the
    last ones hardly wait.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: deque[Stream] = deque()
        self._wake = asyncio.Event()
        self._marks = 0
        self._coming: set[str] = set()

    def mark(self, stream: Stream) -> None:
        """There is something to send. Cheap, and bounded: a stream stands in the queue once."""
        self._marks += 1
        if not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)
            self._wake.set()

    def expect(self, task_id: str) -> None:
        """A task was made that will be some node's in a moment, as far as is known."""
        self._marks += 1
        self._coming.add(task_id)

    def expect_no_more(self, task_id: str) -> None:
        """The task has a node, is gone, or waits for something else."""
        self._coming.discard(task_id)

    def expect_nothing(self) -> None:
        """What was expected is not known any more."""
        self._coming.clear()

    async def run(self) -> None:
        """Pump, until cancelled."""
        queue = self._queue
        while True:
            while not queue:
                self._wake.clear()
                await self._wake.wait()
            if len(queue) > IDLE_STREAMS:
                await self._gather()
            for turn in range(len(queue)):
                stream = queue.popleft()
                stream.is_queued = False
                stream.is_dirty = True
                stream.wake.set()
                if turn % WAKES_PER_TURN == WAKES_PER_TURN - 1:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _gather(self) -> None:
        clock, queue = self._clock, self._queue
        start = clock.monotonic()
        while True:
            marks, now = self._marks, clock.monotonic()
            end = start + min(len(queue) * SECONDS_PER_STREAM, MAX_GATHER)
            if now >= end:
                # Waited for in vain, or there is no end of them: nothing waits for the same ones again.
                self._coming.clear()
                return
            await clock.sleep_until(min(end, now + min((end - start) / GATHER_STEPS, MAX_STEP)))
            if self._marks == marks and not self._coming:
                return
