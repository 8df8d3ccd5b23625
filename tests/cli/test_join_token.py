"""The join token, from where nobody sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmcore.cli.join_token import VARIABLE, find_join_token
from swarmcore.errors import ConfigurationError


def test_a_flag_comes_before_the_environment_which_keeps_nothing_for_what_the_node_runs() -> None:
    environment = {VARIABLE: "SWMTKN-of-the-environment"}

    assert find_join_token("SWMTKN-typed", "", environment) == "SWMTKN-typed"
    assert environment == {}
    assert find_join_token("", "", {VARIABLE: "SWMTKN-of-the-environment\n"}) == "SWMTKN-of-the-environment"
    assert find_join_token("", "", {}) == ""


def test_a_file_holds_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("SWMTKN-in-a-file\n")

    assert find_join_token("", str(file), {}) == "SWMTKN-in-a-file"


def test_what_can_not_be_a_token_is_refused_by_its_flag(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")

    for flag, file, words in (
        ("", "/nonexistent", "can't read --join-token-file '/nonexistent'"),
        ("", str(tmp_path / "empty"), "what --join-token-file names is empty"),
        ("SWMTKN-typed", str(tmp_path / "empty"), "exclude each other"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            find_join_token(flag, file, {})


def test_the_file_of_a_node_that_has_joined_may_be_gone() -> None:
    assert find_join_token("", "/nonexistent", {}, is_joined=True) == ""
