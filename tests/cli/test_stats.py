"""What `task stats` shows."""

from __future__ import annotations

import pytest

from swarmcore.api.exec_pb2 import TaskStats
from swarmcore.cli.stats import row, screen


def test_a_live_table_fits_its_terminal() -> None:
    lines = ["Task  ID", "----  --", *(f"web.{number}  {number:012d}" for number in range(10))]

    shown = screen(lines, 12, 6)

    assert shown == [
        "Task  ID",
        "----  --",
        "web.0  0000…",
        "web.1  0000…",
        "… and 8 mor…",
    ]
    assert screen(lines, 200, 50) == lines


def test_what_is_not_known_is_a_dash() -> None:
    assert row(TaskStats(task_id="t" * 25), "web.1", "n1", truncate=True) == (
        *("web.1", "t" * 12, "n1"),
        *["-"] * 6,
    )


@pytest.mark.parametrize(("limit", "shown", "percent"), [(0, "1.5MiB", "-"), (3 << 20, "1.5MiB / 3MiB", "50.0%")])
def test_memory_is_shown_with_its_limit_where_there_is_one(limit: int, shown: str, percent: str) -> None:
    stats = TaskStats(task_id="t", memory_bytes=3 << 19, memory_limit_bytes=limit)

    assert row(stats, "web.1", "n1", truncate=True)[4:6] == (shown, percent)
