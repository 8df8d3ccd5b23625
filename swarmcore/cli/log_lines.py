"""Lines of logs as they are printed: whose they are, when they were written, and what was written. Pure."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from swarmcore.api.logbroker_pb2 import LogMessage, LogStream
from swarmcore.cli.text import clean

COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
MAX_WIDTH = 60
"""Prefixes are padded to the longest one so far, up to this."""
SHORT_ID = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How lines are printed."""

    raw: bool = False
    """Nothing but what was written."""
    timestamps: bool = False
    details: bool = False
    task_ids: bool = True
    truncate: bool = True
    colour: tuple[bool, bool] = (False, False)
    """On stdout, on stderr."""
    is_together: bool = False
    """Both end on one screen."""


class LogPrinter:
    """Turns messages into bytes for stdout and stderr.

    A task may write a line in pieces. They are joined where nothing comes between; what another task writes begins on a
    line of its own.
    """

    def __init__(self, style: Style, name_of: Callable[[LogMessage], tuple[str, str]]) -> None:
        """`name_of` tells the names of a line's task and node."""
        self._style = style
        self._name_of = name_of
        self._names: dict[str, tuple[str, str]] = {}
        self._width = 0
        self._unfinished: dict[bool, tuple[str, int] | None] = {}
        """Task and stream of a line that stands there without its end, by where it stands."""

    def bytes_of(self, line: LogMessage) -> tuple[bool, bytes]:
        """Whether it goes to stderr, and what is printed."""
        is_error = line.stream == LogStream.LOG_STREAM_STDERR
        data = line.data
        if self._style.raw:
            return is_error, data
        key = (line.context.task_id, int(line.stream))
        before = b""
        place = is_error and not self._style.is_together
        unfinished = self._unfinished.get(place)
        if unfinished == key:
            prefix = ""
        else:
            if unfinished is not None:
                before = b"\n"
            prefix = self._prefix(line, is_error)
        self._unfinished[place] = None if data.endswith(b"\n") else key
        return is_error, before + prefix.encode(errors="replace") + data

    def _prefix(self, line: LogMessage, is_error: bool) -> str:
        style = self._style
        colours = style.colour[is_error]
        parts = []
        if style.timestamps:
            stamp = timestamp(line)
            parts.append(f"\x1b[2m{stamp}\x1b[0m " if colours else f"{stamp} ")
        name, colour = self._title(line)
        self._width = max(self._width, min(len(name), MAX_WIDTH))
        padding = " " * (self._width - len(name))
        parts.append(f"\x1b[{colour}m{name}{padding} |\x1b[0m " if colours else f"{name}{padding} | ")
        if style.details and line.attrs:
            said = sorted(f"{clean(attr.key)}={clean(attr.value)}" for attr in line.attrs)
            parts.append(",".join(said) + " ")
        return "".join(parts)

    def _title(self, line: LogMessage) -> tuple[str, str]:
        task_id = line.context.task_id
        known = self._names.get(task_id)
        if known is None:
            task, node = self._name_of(line)
            if self._style.task_ids and task_id not in task:
                task += "." + (task_id[:SHORT_ID] if self._style.truncate else task_id)
            colour = self._colour(task_id)
            known = self._names[task_id] = (clean(f"{task}@{node}" if node else task), colour)
        return known

    def _colour(self, task_id: str) -> str:
        """The same for a task each time, as long as there are more colours than tasks; else the next one."""
        first = zlib.crc32(task_id.encode()) % len(COLOURS)
        used = {colour for _, colour in self._names.values()}
        turns = [COLOURS[(first + turn) % len(COLOURS)] for turn in range(len(COLOURS))]
        return next((colour for colour in turns if colour not in used), turns[0])


def timestamp(line: LogMessage) -> str:
    """When the line was written, in UTC, to the nanosecond."""
    try:
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(line.timestamp.seconds))
    except (ValueError, OverflowError, OSError):
        whole = str(line.timestamp.seconds)
    return f"{whole}.{line.timestamp.nanos:09d}Z"
