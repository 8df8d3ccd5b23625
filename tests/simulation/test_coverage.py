"""Each fault and each check of the simulation really happens: a fault that never comes true proves nothing."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from swarmcore.testing.simulation.run import simulate

SEEDS = range(100)

FAULTS = {
    "crash": ("fault: kill", "fault: kill_the_leader"),
    "power loss that drops unsynced bytes": ("bytes lost with the power", "names lost with the power"),
    "torn write": ("torn write", "power cut in a write"),
    "failed fsync": ("failed sync",),
    "full disk": ("full disk",),
    "hung disk": ("fault: hung_disk",),
    "partition: one": ("fault: cut_off_one", "message cut off"),
    "partition: a minority": ("fault: cut_off_a_minority", "fault: cut_off_the_leader"),
    "partition: no majority anywhere": ("fault: split",),
    "partition: ring": ("fault: ring",),
    "partition: one way": ("fault: one_way",),
    "loss": ("message lost", "fault: lose", "fault: lose_one_kind"),
    "delay": ("message delayed",),
    "duplication": ("message doubled",),
    "reordering": ("message overtaken",),
    "pause": ("fault: pause",),
    "clock jump": ("fault: jump",),
    "clock drift": ("fault: drift",),
    "membership change": ("fault: add_member", "fault: remove_member"),
    "leadership transfer": ("fault: transfer", "fault: usurp"),
    "key change": ("fault: rotate_keys",),
    "snapshot interrupted": ("snapshot interrupted", "a snapshot goes on where it broke off", "snapshot taken over"),
    "wiped disk": ("fault: lose_the_disk", "start refused on a disk that is empty or another's"),
    "another member's disk": ("fault: swap_the_disk",),
}

CHECKS = (
    "election safety: checked",
    "log matching: checked",
    "leader completeness: checked",
    "promises kept: checked",
    "applied entries: compared",
    "applied state: compared",
    "states compared at the end",
    "histories checked",
    "operations in histories",
)


@pytest.fixture(scope="module")
def counts() -> Counter[str]:
    logging.disable(logging.CRITICAL)
    try:
        return sum((simulate(seed).counts for seed in SEEDS), Counter[str]())
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_comes_true(fault: str, counts: Counter[str]) -> None:
    assert {name: counts[name] for name in FAULTS[fault] if not counts[name]} == {}


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_has_something_to_look_at(check: str, counts: Counter[str]) -> None:
    assert counts[check] > len(SEEDS) / 2


def test_a_history_is_more_than_a_handful_of_operations(counts: Counter[str]) -> None:
    assert counts["operations in histories"] > 20 * counts["histories checked"]
