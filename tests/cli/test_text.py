from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.cli import text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0.4, "Less than a second"),
        (1, "1 second"),
        (12, "12 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (21 * 86400, "3 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages_are_in_the_words_of_swarmkit(seconds: float, words: str) -> None:
    assert text.age(seconds) == words
    assert text.ago(Timestamp(seconds=10_000_000_000), 10_000_000_000 + seconds) == f"{words} ago"


def test_a_time_that_was_never_set_is_empty() -> None:
    assert text.ago(Timestamp()) == text.moment(Timestamp()) == ""


@pytest.mark.parametrize(
    ("seconds", "nanos", "shown"),
    [(0, 0, "0s"), (20, 0, "20s"), (90, 0, "1m30s"), (2160 * 3600, 0, "2160h0m0s"), (1, 500_000_000, "1.5s")],
)
def test_durations_are_shown_as_they_are_typed(seconds: int, nanos: int, shown: str) -> None:
    from swarmcore.cli.values import duration_nanoseconds

    assert text.duration(seconds, nanos) == shown
    assert duration_nanoseconds(shown) == seconds * 10**9 + nanos


def test_sizes_and_cpus() -> None:
    assert [text.memory(size) for size in (0, 512, 512 << 20, 3 << 29)] == ["0 B", "512 B", "512 MiB", "1.5 GiB"]
    assert [text.cpus(nanos) for nanos in (500_000_000, 2_000_000_000, 1)] == ["0.5", "2", "0.000000001"]


def test_a_table_pads_columns_and_leaves_no_blanks_at_the_end() -> None:
    assert text.table(("A", "Long"), [("wide cell", ""), ("x", "y")]) == (
        "A          Long\n"
        "-          ----\n"
        "wide cell\n"
        "x          y"
    )  # fmt: skip


def test_a_table_without_rows_is_its_headers() -> None:
    assert text.table(("ID", "Name"), []) == "ID  Name\n--  ----"


def test_colours_do_not_move_columns() -> None:
    plain = text.table(("S", "T"), [("READY", "x"), ("DOWN", "y")])
    coloured = text.table(("S", "T"), [("READY", "x"), ("DOWN", "y")], colour=True)

    for code in ("1", "2", "31", "32", "0"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == plain


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not text.uses_colour()

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert text.uses_colour()

    monkeypatch.setenv("NO_COLOR", "1")
    assert not text.uses_colour()


def test_a_page_nests_keys_and_drops_what_is_empty() -> None:
    page = text.Page()
    page.add("ID", "x")
    page.add("Nothing", "")
    with page.section("Empty"):
        page.add("Nothing", None)
    with page.section("Outer"):
        page.listing("Labels", {"b": "2", "a": "1"})
        page.listing("Env", ["A=1"])

    assert str(page) == (
        "ID                : x\n"
        "Outer\n"
        " Labels\n"
        "  a               : 1\n"
        "  b               : 2\n"
        " Env\n"
        "  A=1"
    )  # fmt: skip
