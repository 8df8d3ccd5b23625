"""The log in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.raft.log import RaftLog, recovered
from swarmcore.raft.types import Entry, EntryKind


def entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(index, term, EntryKind.NORMAL, b"x" * 10) for index, term in enumerate(terms, first)]


def test_terms_are_known_from_the_cut_on() -> None:
    log = RaftLog(3, 2, entries(4, 2, 3))

    assert [log.term_at(index) for index in range(2, 7)] == [None, 2, 2, 3, None]
    assert (log.last_index, log.last_term) == (5, 3)


def test_an_empty_log_ends_where_it_was_cut() -> None:
    log = RaftLog(3, 2)

    assert (log.last_index, log.last_term) == (3, 2)


def test_a_cut_keeps_what_follows_and_the_term_before_it() -> None:
    log = RaftLog(0, 0, entries(1, 1, 1, 2, 2))

    log.cut(2)
    log.cut(1)

    assert (log.start_index, log.term_at(2), log.term_at(1)) == (2, 1, None)
    assert [entry.index for entry in log.between(3, 4)] == [3, 4]


def test_a_batch_is_as_large_as_asked_and_never_empty_where_there_is_something() -> None:
    log = RaftLog(0, 0, entries(1, 1, 1, 1))

    assert [len(log.batch(1, size)) for size in (0, 10, 19, 20, 99)] == [1, 1, 1, 2, 3]
    assert log.batch(4, 99) == ()


def test_appending_replaces_what_stood_there() -> None:
    log = RaftLog(0, 0, entries(1, 1, 1, 1))

    log.append(entries(2, 5))

    assert [log.term_at(index) for index in (1, 2, 3)] == [1, 5, None]


@given(
    st.lists(st.integers(1, 4), max_size=12).map(sorted),
    st.integers(0, 15),
    st.integers(0, 5),
)
def test_the_last_place_up_to_a_term_is_what_a_search_would_find(terms: list[int], index: int, term: int) -> None:
    log = RaftLog(0, 0, entries(1, *terms))

    found = log.last_place_up_to(index, term)

    places = [at for at in range(min(index, len(terms)) + 1) if (log.term_at(at) or 0) <= term]
    assert found == (places[-1], log.term_at(places[-1]))


@pytest.mark.parametrize(
    ("snapshot", "found", "start", "last"),
    [
        ((0, 0), entries(1, 1, 1), 0, 2),
        ((5, 2), [], 5, 5),
        ((5, 2), entries(6, 2, 2), 5, 7),
        ((5, 2), entries(3, 2, 2, 2, 2), 3, 6),
        ((5, 2), entries(2, 1, 1), 5, 5),
        ((5, 2), entries(4, 1, 1, 1), 5, 5),
    ],
    ids=["no snapshot", "no log", "behind", "overlapping", "older", "of another leader"],
)
def test_a_log_is_read_against_its_snapshot(
    snapshot: tuple[int, int], found: list[Entry], start: int, last: int
) -> None:
    log = recovered(*snapshot, found)

    assert (log.start_index, log.last_index) == (start, last)
    assert log.term_at(snapshot[0]) == snapshot[1]


def test_a_gap_between_snapshot_and_log_is_no_log() -> None:
    with pytest.raises(ValueError, match="entries 6 to 8 are missing"):
        recovered(5, 2, entries(9, 2))
