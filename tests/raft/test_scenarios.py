"""The rules of Raft as transcripts, in `scenarios/`; the README there says which file shows which rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swarmcore.testing.raft_scenario import ScenarioError, check, main, played
from swarmcore.testing.simulation.mutants import all_mutants

FOLDER = Path(__file__).parent / "scenarios"
FILES = sorted(FOLDER.glob("*.txt"))

MUTANTS = {mutant.name: mutant for mutant in all_mutants()}
MISTAKES = (
    "vote_not_synced",
    "vote_forgotten",
    "two_votes_in_a_term",
    "vote_for_a_shorter_log",
    "log_compared_by_length_alone",
    "pre_vote_counted_as_vote",
    "candidate_wins_with_half",
    "old_term_entries_counted",
    "learner_counted",
    "committed_by_a_minority",
    "leader_counts_what_it_has_not_written",
    "heartbeat_commits_too_much",
    "append_commits_too_much",
    "acknowledged_before_it_is_written",
    "conflicting_tail_kept",
    "old_append_truncates",
    "previous_entry_not_compared",
    "messages_of_older_terms_heard",
    "snapshot_over_a_newer_log",
    "two_membership_changes_at_once",
    "membership_change_before_the_own_term",
    "snapshot_with_the_newest_membership",
    "stale_read",
    "read_confirmed_by_an_older_heartbeat",
    "read_before_the_own_term",
)
"""Of the simulation's: those in the machine itself. Some are so rare that only a scenario finds them soon."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_the_machine_does_what_the_scenario_says(path: Path) -> None:
    difference = check(path)

    assert not difference, (
        f"{difference}\n\nif that is meant: python -m swarmcore.testing.raft_scenario --rewrite {path}"
    )


def test_every_scenario_stands_for_a_rule() -> None:
    named = re.findall(r"\(([a-z_]+\.txt)\)", (FOLDER / "README.md").read_text())

    assert sorted(named) == [path.name for path in FILES]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_machine_shows_in_a_transcript(name: str) -> None:
    with MUTANTS[name].in_force():
        assert any(_differs(path) for path in FILES), MUTANTS[name].mistake


def _differs(path: Path) -> bool:
    try:
        return bool(check(path))
    except (AssertionError, ScenarioError):
        return True  # the group itself saw that something can't be


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
