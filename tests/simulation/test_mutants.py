"""Mistakes made on purpose are found: the measure of what the simulation looks at.

The table says within how many seeds, counted from the first; about twice of what was measured when it was written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from swarmcore.testing.simulation.mutants import all_mutants
from swarmcore.testing.simulation.run import simulate

SEEDS = {
    "old_term_entries_counted": 80,
    "learner_counted": 250,
    "two_membership_changes_at_once": 120,
    "membership_change_before_the_own_term": 40,
    "vote_not_synced": 40,
    "vote_forgotten": 10,
    "two_votes_in_a_term": 20,
    "vote_for_a_shorter_log": 60,
    "pre_vote_counted_as_vote": 60,
    "candidate_wins_with_half": 60,
    "committed_by_a_minority": 40,
    "leader_counts_what_it_has_not_written": 100,
    "heartbeat_commits_too_much": 80,
    "acknowledged_before_it_is_written": 40,
    "previous_entry_not_compared": 80,
    "messages_of_older_terms_heard": 150,
    "snapshot_with_the_newest_membership": 240,
    "stale_read": 200,
    "read_before_the_own_term": 760,
    "read_before_it_is_applied": 30,
    "durable_before_it_is_written": 40,
    "applied_before_it_is_durable": 40,
    "another_entry_acknowledges": 60,
    "lost_writes_acknowledged": 60,
    "write_of_an_older_term": 60,
    "own_write_differs_from_its_entry": 10,
    "log_not_synced": 10,
    "failed_sync_ignored": 150,
    "failed_sync_tried_again": 150,
    "bytes_of_a_failed_sync_left": 150,
    "folder_not_synced": 10,
    "snapshot_not_synced": 40,
    "unfinished_write_left": 220,
    "every_damage_is_an_unfinished_write": 10,
    "refused_write_forgotten": 40,
    "snapshot_without_reset": 80,
    "log_kept_behind_a_received_snapshot": 20,
    "received_snapshot_not_noted": 20,
    "disk_of_another_member": 20,
    "empty_disk_under_an_old_id": 20,
}
"""Found within so many seeds. What is not here takes more than a test may: `--mutants` of the command looks for it."""

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
