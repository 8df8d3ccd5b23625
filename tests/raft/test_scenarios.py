"""The rules of Raft as transcripts, in `scenarios/`; the README there says which file shows which rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swarmcore.testing.raft_scenario import ScenarioError, check, main, played

FOLDER = Path(__file__).parent / "scenarios"
FILES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_the_machine_does_what_the_scenario_says(path: Path) -> None:
    difference = check(path)

    assert not difference, (
        f"{difference}\n\nif that is meant: python -m swarmcore.testing.raft_scenario --rewrite {path}"
    )


def test_every_scenario_stands_for_a_rule() -> None:
    named = re.findall(r"\(([a-z_]+\.txt)\)", (FOLDER / "README.md").read_text())

    assert sorted(named) == [path.name for path in FILES]


def test_a_transcript_that_differs_is_shown_and_can_be_rewritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "alone.txt"
    path.write_text("Alone.\n\n> group 1\n  1 is tired\n> data\n")

    assert main([str(path)]) == 1
    assert "-  1 is tired\n" in capsys.readouterr().out
    assert main(["--rewrite", str(path)]) == 0
    assert main([str(path)]) == 0
    assert path.read_text().startswith("Alone.\n\n> group 1\n  1 is leader in term 2\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("> dance", "no such command as 'dance'"),
        ("> tick 1", "the first command must be `group`"),
        ("> group 1 2\n> tick 9", "command 2: 'tick 9': KeyError 9"),
        ("> group 1 2\n> progress 1", "member 1 does not lead"),
        ("> group 1 2\n> change 1 marry 2", "marry 2"),
        ("> group 1 2\n> disk 1 melts", "melts"),
    ],
)
def test_a_command_that_makes_no_sense_is_named(text: str, reason: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(reason)):
        played(text)
