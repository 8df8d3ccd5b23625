"""Words that can't be understood, and lines that would be too long."""

from __future__ import annotations

import pytest

from swarmcore.cli.words import MAX_CHARACTERS, shortened, wrong_word


def test_words_that_are_text_are_left_to_the_commands() -> None:
    assert wrong_word(["service", "ls", "", "-1", "\x1b[2J", "größe"]) is None


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("\udcff", "argument 2 is not UTF-8: '\\udcff'"),
        ("a\0b", "argument 2 has a NUL in it: 'a\\x00b'"),
    ],
)
def test_words_that_are_no_text_are_refused_by_their_place(word: str, text: str) -> None:
    assert wrong_word(["ls", word]) == text


def test_a_line_keeps_its_beginning_and_its_end() -> None:
    assert shortened("as\nit is") == "as it is"

    long = shortened("begin " + "x" * 100_000 + " end")

    assert len(long) <= MAX_CHARACTERS
    assert long.startswith("begin xx") and long.endswith("xx end")
