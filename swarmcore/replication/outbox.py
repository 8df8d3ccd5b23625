"""What waits to be sent to one member: bounded in messages and in bytes, and what is urgent goes first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from swarmcore.raft.messages import AppendRequest, InstallSnapshot, Message

MAX_MESSAGES = 4096
MAX_BYTES = 16 * 1024 * 1024
"""Entry data that waits, at most; twice what the machine lets be under way to one member."""
NEWS_SECONDS = 0.005
"""How long word of what is committed waits for entries to go along with."""
MESSAGE_BYTES = 64
"""What a message costs besides its entries, about."""


class Outbox:
    """Raft's messages may be lost and overtake one another; so heartbeats and votes never wait behind entries."""

    def __init__(self) -> None:
        self._urgent: deque[Message] = deque()
        self._bulk: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self.bytes = 0
        """Entry data that waits."""

    def __len__(self) -> int:
        return len(self._urgent) + len(self._bulk)

    def put(self, message: Message) -> bool:
        """Take a message in; False when it is lost, because too many wait already. A snapshot's is never lost here."""
        size = _entry_bytes(message)
        is_full = len(self) >= MAX_MESSAGES or (size and self.bytes and self.bytes + size > MAX_BYTES)
        if is_full and not isinstance(message, InstallSnapshot):
            return False
        self.bytes += size
        (self._bulk if isinstance(message, AppendRequest) else self._urgent).append(message)
        if isinstance(message, AppendRequest) and not message.entries:
            # With one writer, each commit would else cost a second round of messages.
            if self._alarm is None and not self._wake.is_set():
                self._alarm = asyncio.get_running_loop().call_later(NEWS_SECONDS, self.ring)
        else:
            self.ring()
        return True

    def ring(self) -> None:
        """Let `wait` return now."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._wake.set()

    async def wait(self) -> None:
        """Return once something is to be sent now."""
        await self._wake.wait()

    def take(self, max_bytes: int) -> Iterator[Message]:
        """Take messages out, urgent ones first, until more than `max_bytes` were taken."""
        taken = 0
        while self and taken < max_bytes:
            message = (self._urgent or self._bulk).popleft()
            size = _entry_bytes(message)
            self.bytes -= size
            taken += size + MESSAGE_BYTES
            yield message
        self._calm()

    def clear(self) -> bool:
        """Lose everything; whether the machine waits for the fate of a snapshot that is lost now."""
        has_snapshot = any(isinstance(message, InstallSnapshot) for message in self._urgent)
        self._urgent.clear()
        self._bulk.clear()
        self.bytes = 0
        self._calm()
        return has_snapshot

    def _calm(self) -> None:
        """Nothing calls for sending once nothing is left."""
        if not self:
            self._wake.clear()
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None


def _entry_bytes(message: Message) -> int:
    return sum(len(entry.data) for entry in message.entries) if isinstance(message, AppendRequest) else 0
