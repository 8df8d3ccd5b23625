"""What a leader knows of one member's log, and how much it may send ahead (after etcd's flow control)."""

from __future__ import annotations

from collections import deque
from enum import Enum


class Pace(Enum):
    PROBE = "probe"
    """Where the logs agree is not known: one message at a time."""
    REPLICATE = "replicate"
    """They agree: messages follow one another without waiting, up to the window."""
    SNAPSHOT = "snapshot"
    """A snapshot is under way: no entries."""


class Progress:
    """One member, seen by the leader."""

    __slots__ = (
        "_window",
        "_window_bytes",
        "inflight",
        "inflight_bytes",
        "is_active",
        "is_waiting",
        "match",
        "next",
        "pace",
        "snapshot_index",
        "was_active",
    )

    def __init__(self, next: int, window: int, window_bytes: int) -> None:
        self.match = 0
        """Highest index that is durable there for certain."""
        self.next = next
        """First index to send."""
        self.pace = Pace.PROBE
        self.inflight: deque[tuple[int, int]] = deque()
        """Last index and size of each append message under way, in order."""
        self.inflight_bytes = 0
        self._window = window
        self._window_bytes = window_bytes
        self.is_waiting = False
        """While probing: a message is under way."""
        self.is_active = False
        """Heard from since the last check of the quorum."""
        self.was_active = False
        """The same, or it was at the last check."""
        self.snapshot_index = 0

    @property
    def is_paused(self) -> bool:
        match self.pace:
            case Pace.PROBE:
                return self.is_waiting
            case Pace.REPLICATE:
                return self.is_full
            case Pace.SNAPSHOT:
                return True

    @property
    def is_full(self) -> bool:
        """As much is under way as may be, in messages or in bytes."""
        return len(self.inflight) >= self._window or self.inflight_bytes >= self._window_bytes

    def probe(self) -> None:
        """Go back to one message at a time, from what is certain."""
        certain = self.snapshot_index if self.pace is Pace.SNAPSHOT else 0
        self.next = max(self.match, certain) + 1
        self._enter(Pace.PROBE)

    def replicate(self) -> None:
        self.next = self.match + 1
        self._enter(Pace.REPLICATE)

    def send_snapshot(self, index: int) -> None:
        self._enter(Pace.SNAPSHOT)
        self.snapshot_index = index

    def snapshot_failed(self) -> None:
        self.snapshot_index = 0
        self.probe()

    def _enter(self, pace: Pace) -> None:
        self.pace = pace
        self.is_waiting = False
        self.inflight.clear()
        self.inflight_bytes = 0
        self.snapshot_index = 0

    def sent(self, last_index: int, size: int) -> None:
        """A message with `size` bytes of entries up to `last_index` left."""
        if self.pace is Pace.PROBE:
            self.is_waiting = True
        else:
            self.next = last_index + 1
            self.inflight.append((last_index, size))
            self.inflight_bytes += size

    def sent_empty(self) -> None:
        """A message without entries left: while replicating nothing waits for its answer."""
        if self.pace is Pace.PROBE:
            self.is_waiting = True

    def accepted(self, index: int) -> bool:
        """The member has everything up to `index`; whether that is news."""
        while self.inflight and self.inflight[0][0] <= index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        self.next = max(self.next, index + 1)
        if index <= self.match:
            return False
        self.match = index
        self.is_waiting = False
        return True

    def refused(self, previous_index: int, agreeing: int) -> bool:
        """The member lacks `previous_index` and may agree at `agreeing`; False when this is an old answer."""
        if self.pace is Pace.REPLICATE:
            if previous_index <= self.match:
                return False
            self.probe()
            return True
        if self.pace is Pace.SNAPSHOT or self.next - 1 != previous_index:
            return False
        if previous_index <= self.match:
            # It lost what it had written, or the answer is very old. To say the same at once would go round for ever.
            return False
        self.next = max(min(previous_index, agreeing + 1), self.match + 1)
        self.is_waiting = False
        return True

    def alive(self) -> None:
        self.is_active = self.was_active = True

    def counted(self) -> None:
        """The quorum was checked; the next check looks at what is heard from now on."""
        self.was_active, self.is_active = self.is_active, False

    def heard(self) -> None:
        """A heartbeat came back: while probing, one more message may go, in case the last one was lost."""
        self.alive()
        self.is_waiting = False
