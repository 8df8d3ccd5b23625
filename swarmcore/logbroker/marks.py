"""How far streams of lines have been read, so that a stream that is asked for anew goes on where it stopped. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from swarmcore.api.logbroker_pb2 import LogMessage

BILLION = 1_000_000_000


@dataclass(slots=True)
class _Mark:
    timestamp_ns: int
    count: int
    """Lines of just that time that were read."""
    skip: int = 0
    """Those of them that are still to come once more."""


class Marks:
    """One mark for each stream of each task.

    Ask again for all lines since `since_ns`, after `rewind`; `is_new` then tells which of them were not read before.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, int], _Mark] = {}
        self.lines = 0
        """How many were new."""

    @property
    def since_ns(self) -> int | None:
        """The earliest time up to which some stream was read; None where nothing was."""
        return min((mark.timestamp_ns for mark in self._marks.values()), default=None)

    def rewind(self) -> None:
        """Lines since `since_ns` come once more."""
        for mark in self._marks.values():
            mark.skip = mark.count

    def is_new(self, line: LogMessage) -> bool:
        """Whether the line was not read before; it counts as read from now on."""
        stamp = line.timestamp.seconds * BILLION + line.timestamp.nanos
        key = (line.context.task_id, line.stream)
        mark = self._marks.get(key)
        if mark is None:
            self._marks[key] = _Mark(stamp, 1)
        elif stamp > mark.timestamp_ns:
            mark.timestamp_ns, mark.count, mark.skip = stamp, 1, 0
        elif mark.skip:
            if stamp == mark.timestamp_ns:
                mark.skip -= 1
            return False
        elif stamp == mark.timestamp_ns:
            mark.count += 1
        self.lines += 1
        return True
