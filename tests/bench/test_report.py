"""The report's figures and verdicts."""

from __future__ import annotations

import io

from rich.console import Console

from bench.race import parse
from bench.report import LARGE, SMALL, Measured, print_report, ratio


def text_of(measured: Measured) -> str:
    console = Console(file=io.StringIO(), width=140)
    print_report(console, measured)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_both_sides_their_ratio_and_the_verdict_are_shown() -> None:
    measured = Measured(["docker", "ours"])
    measured.races = {
        SMALL: {"docker": [1.0, 1.5, 180, 0.1], "ours": [0.9, 0.8, 150, 0.1]},
        LARGE: {"docker": [50.0, 90, 900, 2], "ours": [20.0, 19, 500, 1]},
    }

    text = text_of(measured)

    rows = [line for line in text.splitlines() if "all RUNNING" in line]
    assert "0.90" in rows[1] and "reached" in rows[1]
    assert "0.40" in rows[2] and "missed" in rows[2]
    assert measured.growth()["ours"] == (20 / 20_000) / (0.9 / 2_000)


def test_one_side_alone_has_no_ratio() -> None:
    measured = Measured(["ours"])
    measured.latency = {"ours": 0.05}

    assert ratio({"ours": 1.0}) is None
    assert "50.0" in text_of(measured)


def test_sizes_are_tasks_over_workers() -> None:
    assert parse(["--sizes", "10/2", "300/30"]).sizes == [(10, 2), (300, 30)]
    assert parse(["--quick"]).sizes[-1] == SMALL
