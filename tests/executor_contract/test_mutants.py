"""The contract suite finds what it is for: a good executor passes, and each broken one fails in its own check alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swarmcore.testing.executor_contract import ExecutorContract
from swarmcore.testing.executor_contract.memory import ModelSubject
from swarmcore.testing.executor_contract.mutants import LITTER, MUTANTS
from swarmcore.testing.executor_contract.runner import checks_of, run_checks
from swarmcore.testing.simulation.loop import new_loop

CHECKS = [check for _, check in checks_of(ExecutorContract)]


@pytest.fixture(autouse=True)
def _no_litter() -> Iterator[None]:
    yield
    LITTER.clear()


def test_every_check_has_its_mutant() -> None:
    assert sorted(MUTANTS) == sorted(CHECKS)


def test_a_good_executor_passes_every_check() -> None:
    results = list(run_checks(ExecutorContract, ModelSubject, new_loop=new_loop))

    assert {result.check: result.error for result in results if result.error is not None} == {}
    assert [result.check for result in results] == CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_a_broken_executor_fails_in_its_own_check_and_in_no_other(check: str) -> None:
    failed = {
        result.check: str(result.error)
        for result in run_checks(ExecutorContract, MUTANTS[check], new_loop=new_loop)
        if result.error is not None
    }

    assert set(failed) == {check}, failed
