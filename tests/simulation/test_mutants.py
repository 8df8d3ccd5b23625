"""Mistakes made on purpose are found: the measure of what the simulation looks at.

The table says within how many seeds, counted from the first: three times what was measured when it was written, and at
least 60, since any change of the code deals the seeds anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from swarmcore.testing.simulation.mutants import all_mutants
from swarmcore.testing.simulation.run import simulate

SEEDS = {
    "vote_not_synced": 60,
    "vote_forgotten": 60,
    "two_votes_in_a_term": 60,
    "vote_for_a_shorter_log": 60,
    "pre_vote_counted_as_vote": 60,
    "candidate_wins_with_half": 60,
    "old_term_entries_counted": 60,
    "learner_counted": 60,
    "committed_by_a_minority": 60,
    "leader_counts_what_it_has_not_written": 60,
    "heartbeat_commits_too_much": 80,
    "append_commits_too_much": 500,
    "acknowledged_before_it_is_written": 60,
    "old_append_truncates": 60,
    "previous_entry_not_compared": 60,
    "snapshot_over_a_newer_log": 80,
    "two_membership_changes_at_once": 60,
    "membership_change_before_the_own_term": 60,
    "snapshot_with_the_newest_membership": 180,
    "stale_read": 60,
    "read_before_the_own_term": 60,
    "read_before_it_is_applied": 60,
    "durable_before_it_is_written": 60,
    "applied_before_it_is_durable": 60,
    "another_entry_acknowledges": 60,
    "lost_writes_acknowledged": 60,
    "write_of_an_older_term": 60,
    "own_write_differs_from_its_entry": 60,
    "log_not_synced": 60,
    "failed_sync_ignored": 120,
    "failed_sync_tried_again": 120,
    "bytes_of_a_failed_sync_left": 160,
    "folder_not_synced": 60,
    "snapshot_not_synced": 60,
    "unfinished_write_left": 60,
    "every_damage_is_an_unfinished_write": 60,
    "refused_write_forgotten": 60,
    "hard_state_left_in_an_older_segment": 80,
    "log_removed_before_its_snapshot": 140,
    "too_much_of_the_log_removed": 180,
    "snapshot_without_reset": 60,
    "log_kept_behind_a_received_snapshot": 160,
    "received_snapshot_not_noted": 160,
    "disk_of_another_member": 60,
    "empty_disk_under_an_old_id": 60,
}
"""Found within so many seeds. What is not here takes more than a test may: `--mutants` of the command looks for it, and
those in the machine itself show in a scenario (tests/raft/test_scenarios.py)."""

MUTANTS = {mutant.name: mutant for mutant in all_mutants()}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_there_are_enough_of_them() -> None:
    assert len(SEEDS) >= 20
    assert SEEDS.keys() <= MUTANTS.keys()


@pytest.mark.parametrize("name", SEEDS)
def test_a_mistake_is_found(name: str) -> None:
    mutant = MUTANTS[name]

    assert mutant.seeds_until_found(SEEDS[name]) is not None, mutant.mistake


def test_a_mutant_leaves_nothing_behind() -> None:
    before = simulate(0)
    for mutant in MUTANTS.values():
        with mutant.in_force():
            pass

    after = simulate(0)

    assert before.violation is None
    assert (after.violation, after.agreed, after.acknowledged) == (None, before.agreed, before.acknowledged)
