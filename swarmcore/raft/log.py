"""The log in memory: what follows the last cut, and the term of the entry that the cut fell on."""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.raft.types import Entry


class RaftLog:
    """Entries from `start_index` + 1 on, without a gap."""

    def __init__(self, start_index: int, start_term: int, entries: Sequence[Entry] = ()) -> None:
        self.start_index = start_index
        """The last entry that is not here any more; its term is still known."""
        self._start_term = start_term
        self._entries = list(entries)

    @property
    def last_index(self) -> int:
        return self._entries[-1].index if self._entries else self.start_index

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._start_term

    def term_at(self, index: int) -> int | None:
        """The term of an entry, or None when it is not known (any more, or yet)."""
        if index == self.start_index:
            return self._start_term
        position = index - self.start_index - 1
        return self._entries[position].term if 0 <= position < len(self._entries) else None

    def has(self, index: int, term: int) -> bool:
        return self.term_at(index) == term

    def between(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries from `first` to `last`, both included."""
        position = first - self.start_index - 1
        return tuple(self._entries[position : last - self.start_index])

    def batch(self, first: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries from `first` on, as many as fit into `max_bytes`, and at least one where there is one."""
        position = first - self.start_index - 1
        end, size = position, 0
        while end < len(self._entries):
            size += len(self._entries[end].data)
            if size > max_bytes and end > position:
                break
            end += 1
        return tuple(self._entries[position:end])

    def is_current(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so holds at least what this one does (paper §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def conflict(self, entries: Sequence[Entry]) -> int:
        """How many of `entries`, which follow an entry that both logs hold, are here already."""
        for position, entry in enumerate(entries):
            if not self.has(entry.index, entry.term):
                return position
        return len(entries)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow one of the log's; what stood in their place goes."""
        del self._entries[entries[0].index - self.start_index - 1 :]
        self._entries.extend(entries)

    def truncate(self, last_index: int) -> None:
        """Forget what follows `last_index`."""
        del self._entries[last_index - self.start_index :]

    def cut(self, index: int) -> None:
        """Forget the entries up to `index`, but for the term of that one."""
        if index <= self.start_index:
            return
        term = self.term_at(index)
        assert term is not None
        del self._entries[: index - self.start_index]
        self.start_index, self._start_term = index, term

    def last_place_up_to(self, index: int, term: int) -> tuple[int, int]:
        """The last entry up to `index` whose term is at most `term`, and its term (0 when it is not known).

        What both sides use to skip whole terms while they look for where their logs agree.
        """
        index = min(index, self.last_index)
        while index > self.start_index:
            found = self.term_at(index)
            assert found is not None
            if found <= term:
                return index, found
            index -= 1
        return index, (self._start_term if index == self.start_index and self._start_term <= term else 0)


def recovered(snapshot_index: int, snapshot_term: int, entries: Sequence[Entry]) -> RaftLog:
    """The log that a member starts with: what it has on disk, read against its newest snapshot.

    Raises ValueError when entries between the snapshot and the log are missing.
    """
    if not entries or entries[-1].index < snapshot_index:
        return RaftLog(snapshot_index, snapshot_term)
    first = entries[0]
    if first.index > snapshot_index + 1:
        raise ValueError(f"entries {snapshot_index + 1} to {first.index - 1} are missing")
    if first.index == snapshot_index + 1:
        return RaftLog(snapshot_index, snapshot_term, entries)
    if entries[snapshot_index - first.index].term != snapshot_term:
        # The snapshot came from a leader that did not have these entries: they were never committed.
        return RaftLog(snapshot_index, snapshot_term)
    # The term before the first entry is not on disk, so the first entry becomes the place the log starts after.
    return RaftLog(first.index, first.term, entries[1:])
