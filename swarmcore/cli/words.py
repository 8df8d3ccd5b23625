"""What both programs do with the words they are called with, and with the line they end in."""

from __future__ import annotations

from collections.abc import Sequence

MAX_CHARACTERS = 1000
"""Of a line on stderr: what was typed may be repeated in it, and may be very long."""


def wrong_word(words: Sequence[str]) -> str | None:
    """Why these arguments can't be understood at all; None where they can."""
    for number, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError:
            return f"argument {number} is not UTF-8: {shortened(ascii(word))}"
        if "\0" in word:
            return f"argument {number} has a NUL in it: {shortened(ascii(word))}"
    return None


def shortened(text: str) -> str:
    """One line that fits on a screen; the end stays, since it says what to do."""
    line = " ".join(text.split())
    if len(line) <= MAX_CHARACTERS:
        return line
    return f"{line[: MAX_CHARACTERS // 2]} … {line[-MAX_CHARACTERS // 3 :]}"
