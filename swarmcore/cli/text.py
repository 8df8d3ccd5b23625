"""What commands print: tables, `Key : value` pages, ages, sizes, colours. Pure, but for `uses_colour`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

KEY_WIDTH = 18
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_STATE_COLOURS = {
    "READY": "green",
    "DOWN": "red",
    "UNKNOWN": "yellow",
    "DISCONNECTED": "yellow",
    "PENDING": "yellow",
    "PAUSE": "yellow",
    "DRAIN": "yellow",
    "UNREACHABLE": "red",
    "RUNNING": "green",
    "COMPLETE": "green",
    "FAILED": "red",
    "REJECTED": "red",
    "ORPHANED": "red",
    "ok": "green",
    "failing": "red",
    "error": "red",
    "conflict": "red",
    "incompatible": "red",
    "missing": "red",
    "blocked": "yellow",
    "disabled": "yellow",
}


def clean(text: str) -> str:
    """`text` in one line and without control characters: what a node or an engine says may hold anything."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class _Enum(Protocol):
    def values(self) -> list[Any]: ...
    def Name(self, number: Any, /) -> str: ...


def enum_name(enum: _Enum, value: int) -> str:
    """The name of an enum's value; its number where a newer manager has one that this version does not know."""
    return enum.Name(value) if value in enum.values() else str(value)


def uses_colour() -> bool:
    """Whether stdout is a terminal that wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if colour else text


def _cell_colour(text: str) -> str:
    return _STATE_COLOURS.get(text.partition(" ")[0], "")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool = False, dashes: bool = True) -> str:
    """Columns as wide as their widest cell, two blanks between, dashes under the headers."""
    cells = [[clean(cell) for cell in row] for row in rows]
    lines = [list(headers), ["-" * len(header) for header in headers]] if dashes else [list(headers)]
    heads = len(lines)
    lines += cells
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    printed = []
    for number, line in enumerate(lines):
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        padded[-1] = line[-1]
        while padded and not padded[-1].strip():
            padded.pop()
        padded[-1:] = [part.rstrip() for part in padded[-1:]]
        if colour and number < heads:
            padded = [paint(cell, "bold" if number == 0 else "dim") for cell in padded]
        elif colour:
            padded = [paint(cell, _cell_colour(cell)) for cell in padded]
        printed.append("  ".join(padded))
    return "\n".join(printed)


class Page:
    """`Key : value` lines, nested by one blank a level, values in one column."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str | None]] = []
        self._depth = 0

    def add(self, key: str, value: object) -> None:
        """One line. Empty text and None are left out."""
        if value is None or value == "":
            return
        self._lines.append((" " * self._depth + key, clean(str(value))))

    def section(self, title: str) -> _Section:
        """`with page.section("Status"): …`; left out where nothing was added."""
        return _Section(self, title)

    def listing(self, title: str, items: Mapping[str, str] | Iterable[object]) -> None:
        """A section with a line for each `key = value`, or for each item."""
        with self.section(title):
            if isinstance(items, Mapping):
                for key in sorted(items):
                    self.add(clean(key), items[key] or '""')
            else:
                for item in items:
                    self._lines.append((" " * self._depth + clean(str(item)), None))

    def __str__(self) -> str:
        keys = [key for key, value in self._lines if value is not None]
        width = max([KEY_WIDTH, *(len(key) + 1 for key in keys if len(key) < 2 * KEY_WIDTH)])
        return "\n".join(key if value is None else f"{key.ljust(width)}: {value}" for key, value in self._lines)


class _Section:
    def __init__(self, page: Page, title: str) -> None:
        self._page = page
        self._title = title

    def __enter__(self) -> None:
        page = self._page
        page._lines.append((" " * page._depth + self._title, None))
        page._depth += 1
        self._start = len(page._lines)

    def __exit__(self, *_: object) -> None:
        self._page._depth -= 1
        if len(self._page._lines) == self._start:
            self._page._lines.pop()


def age(seconds: float) -> str:
    """A length of time in words, as SwarmKit's lists have it."""
    whole = int(max(seconds, 0))
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours <= 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = whole // 86400
    for limit, unit, name in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if days < limit:
            return f"{days // unit} {name}"
    return f"{days // 365} years"


def ago(stamp: Timestamp, now: float | None = None) -> str:
    """`12 seconds ago`; empty for a time that was never set."""
    if not stamp.seconds and not stamp.nanos:
        return ""
    then = stamp.seconds + stamp.nanos / 1e9
    return f"{age((time.time() if now is None else now) - then)} ago"


def moment(stamp: Timestamp) -> str:
    """A time to the second, in UTC; empty for one that was never set or lies outside of the calendar."""
    if not stamp.seconds and not stamp.nanos:
        return ""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stamp.seconds))
    except (ValueError, OverflowError):
        return ""


def duration(seconds: int, nanos: int = 0) -> str:
    """As it is typed: `1h30m0s`, `20s`, `1.5s`, `0s`."""
    sign = "-" if seconds < 0 or nanos < 0 else ""
    hours, rest = divmod(abs(seconds), 3600)
    minutes, whole = divmod(rest, 60)
    fraction = f".{abs(nanos):09d}".rstrip("0") if nanos else ""
    if hours:
        return f"{sign}{hours}h{minutes}m{whole}{fraction}s"
    return f"{sign}{minutes}m{whole}{fraction}s" if minutes else f"{sign}{whole}{fraction}s"


def memory(size: int) -> str:
    """`512 MiB`, `1.5 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} PiB"


def cpus(nanos: int) -> str:
    """`0.5`, `2`."""
    return f"{nanos // 1_000_000_000}{f'.{nanos % 1_000_000_000:09d}'.rstrip('0').rstrip('.')}"
