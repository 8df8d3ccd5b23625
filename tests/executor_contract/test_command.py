"""`python -m swarmcore.testing executor`: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from swarmcore.testing.__main__ import main
from swarmcore.testing.executor_contract.memory import ModelSubject
from swarmcore.testing.executor_contract.mutants import MUTANTS


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["executor", *arguments])


def good() -> ModelSubject:
    return ModelSubject()


def broken() -> ModelSubject:
    return MUTANTS["test_preparing_twice_makes_one"]()


def test_checks_that_hold_are_told_one_by_one() -> None:
    done = run("mine", "--subject", f"{__name__}:good", "--only", "preparing")

    assert done.exit_code == 0, done.output
    assert "State: What each call does to a task, whenever it comes." in done.output
    assert [line.split("s  ")[-1] for line in done.output.splitlines() if line.startswith("  ok")] == [
        "preparing runs nothing",
        "preparing twice makes one",
    ]
    assert "2 checks" in done.output and "all hold" in done.output


def test_a_check_that_does_not_hold_says_why_and_ends_with_1() -> None:
    done = run("mine", "--subject", f"{__name__}:broken", "--only", "preparing twice")

    assert done.exit_code == 1
    assert "FAILED" in done.output
    assert "the second prepare made something more" in done.output
    assert "1 does not hold" in done.output


def test_the_checks_are_listed_and_nothing_is_run() -> None:
    done = run("docker", "--list", "--without", "engine")

    assert done.exit_code == 0
    assert "  wait tells each exit code\n" in done.output
    assert "Engine:" not in done.output
    assert "Health:" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch",), "no installed plugin offers an executor 'nosuch'"),
        (("docker", "--socket", "/nosuch.sock"), "no engine answers at '/nosuch.sock': No such file or directory"),
        (("mine", "--subject", "nosuch"), "--subject 'nosuch' is not MODULE:NAME"),
        (("mine", "--subject", "nosuch:thing"), "--subject 'nosuch:thing': No module named 'nosuch'"),
        (("process", "--only", "nosuch"), "no check has these words; --list shows all"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)

    assert done.exit_code == 1
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_file_that_is_no_socket_is_said(tmp_path: Path) -> None:
    (tmp_path / "s").touch()

    done = run("podman", "--socket", str(tmp_path / "s"))

    assert done.exit_code == 1
    assert "is no socket" in done.output
