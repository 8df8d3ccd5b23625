"""The unlock key: typed, read from a file, from standard input and from the environment, and never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.cli.unlock_key import VARIABLE, find_unlock_key, format_unlock_key, parse_unlock_key
from swarmcore.errors import ConfigurationError

KEY = b"k" * 32
TYPED = format_unlock_key(KEY)


@given(st.binary(min_size=32, max_size=32))
def test_an_unlock_key_survives_being_typed(key: bytes) -> None:
    assert parse_unlock_key(f" {format_unlock_key(key)}\n") == key


@pytest.mark.parametrize(
    "text", ["SWMKEY-1-", "SWMKEY-1-AAAA", TYPED + "=", TYPED[9:], TYPED + "\n" + TYPED, "x" * 5000]
)
def test_a_malformed_unlock_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--unlock-key is malformed") as refused:
        parse_unlock_key(text)

    assert (text.removeprefix("SWMKEY-1-") or "?") not in str(refused.value) and TYPED[9:] not in str(refused.value)


def test_no_key_is_no_error() -> None:
    assert parse_unlock_key("") is None
    assert find_unlock_key("", "", {}) is None


def test_a_file_holds_the_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(TYPED + "\n")

    assert find_unlock_key("", str(file), {}) == KEY


@pytest.mark.parametrize("content", ["", "\n", "nonsense", TYPED[:-1]])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)

    with pytest.raises(ConfigurationError, match="what --unlock-key-file names is"):
        find_unlock_key("", str(file), {})


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="can't read --unlock-key-file '/nonexistent': No such file"):
        find_unlock_key("", "/nonexistent", {})


def test_a_flag_and_a_file_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="exclude each other"):
        find_unlock_key(TYPED, "/nonexistent", {})


@pytest.mark.parametrize(("flag", "found"), [("", KEY), (format_unlock_key(b"f" * 32), b"f" * 32)])
def test_the_environment_is_asked_last_and_keeps_nothing_for_what_the_node_runs(flag: str, found: bytes) -> None:
    environment = {VARIABLE: TYPED, "HOME": "/root"}

    assert find_unlock_key(flag, "", environment) == found
    assert environment == {"HOME": "/root"}


def test_one_line_of_standard_input_is_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, f"{TYPED}\nmore\n".encode())
    os.close(writer)
    with open(reader) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)

        assert find_unlock_key("", "-", {}) == KEY


def test_standard_input_that_is_closed_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)

    with pytest.raises(ConfigurationError, match="is empty"):
        find_unlock_key("", "-", {})
