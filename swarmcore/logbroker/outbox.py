"""Lines on their way to one reader: in order, bounded, with whoever brings more waiting until there is room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from swarmcore.api.logbroker_pb2 import LogMessage, SubscribeLogsMessage

MAX_BYTES: Final = 2 * 1024 * 1024
"""A message that finds less than this waiting is taken whole, so there may be one message of each node above it."""
MESSAGE_BYTES: Final = 512 * 1024
OVERHEAD_BYTES: Final = 256
"""What a line costs beside its data."""


class Outbox:
    """Filled by many publishers, emptied by one reader."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[Sequence[LogMessage], int]] = deque()
        self._bytes = 0
        self._is_closed = False
        self._wake = asyncio.Event()
        self._room: deque[asyncio.Future[None]] = deque()
        """Publishers that wait, the longest one first."""

    @property
    def is_full(self) -> bool:
        return self._bytes >= MAX_BYTES

    async def put(self, lines: Sequence[LogMessage]) -> None:
        """Take lines in, once there is room. Lines that come after `close` are dropped: nobody reads them."""
        while self.is_full and not self._is_closed:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # The turn was given to one who is gone: the next one takes it.
                if turn.done() and not turn.cancelled():
                    self._let_in()
                raise
        self.put_at_once(lines)
        self._let_in()

    def put_at_once(self, lines: Sequence[LogMessage]) -> None:
        """Take lines in whether there is room or not: for the few that don't come from a node."""
        if self._is_closed or not lines:
            return
        size = sum([len(line.data) for line in lines]) + OVERHEAD_BYTES * len(lines)
        self._pieces.append((lines, size))
        self._bytes += size
        self._wake.set()

    async def get(self) -> SubscribeLogsMessage | None:
        """The next message, made of as much as waits; None when it was closed and everything has been read."""
        while not self._pieces:
            if self._is_closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        message = SubscribeLogsMessage()
        size = 0
        while self._pieces and size < MESSAGE_BYTES:
            lines, weight = self._pieces.popleft()
            message.messages.extend(lines)
            size += weight
        self._bytes -= size
        self._let_in()
        return message

    def close(self) -> None:
        """Nothing more comes. What waits can still be read."""
        self._is_closed = True
        self._wake.set()
        while self._room:
            _grant(self._room.popleft())

    def _let_in(self) -> None:
        # One at a time: it lets the next one in, if there is still room.
        while self._room and not self.is_full:
            if _grant(self._room.popleft()):
                return


def _grant(turn: asyncio.Future[None]) -> bool:
    """Let a publisher go on; whether it still waits."""
    if turn.done():
        return False
    turn.set_result(None)
    return True
