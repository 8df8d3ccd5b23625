"""A whole group of managers, disturbed in every way there is: whatever must hold, holds, for each seed.

`make soak` goes on from where these end, and CI runs a thousand.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from swarmcore.testing.simulation.run import simulate

SEEDS = 300
PORTION = 25


@pytest.mark.parametrize("first", range(0, SEEDS, PORTION))
def test_whatever_happens_all_that_must_hold_does(first: int) -> None:
    results = [simulate(seed) for seed in range(first, first + PORTION)]

    assert {result.seed: result.violation for result in results if result.violation is not None} == {}
    assert sum(result.acknowledged for result in results) > PORTION
    assert sum(result.elections for result in results) > PORTION


def test_a_run_is_much_faster_than_the_time_it_simulates() -> None:
    results = [simulate(seed) for seed in range(20)]

    simulated = sum(result.simulated_seconds for result in results)
    real = sum(result.real_seconds for result in results)
    assert simulated > 20 * real


@pytest.mark.parametrize("seed", range(0, 40, 5))
def test_the_same_seed_runs_the_same_way(seed: int) -> None:
    first, second = simulate(seed, is_traced=True), simulate(seed, is_traced=True)

    assert first.transcript == second.transcript


def test_the_same_seed_runs_the_same_way_in_another_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", "from swarmcore.testing.simulation.run import simulate\n"
             "print([simulate(seed, is_traced=True).digest for seed in range(6)])"],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip

    assert len(digests) == 1


def test_a_transcript_changes_nothing() -> None:
    plain, traced = simulate(3), simulate(3, is_traced=True)

    assert plain.transcript == []
    assert (plain.agreed, plain.acknowledged, plain.elections) == (traced.agreed, traced.acknowledged, traced.elections)
    assert plain.simulated_seconds == traced.simulated_seconds
