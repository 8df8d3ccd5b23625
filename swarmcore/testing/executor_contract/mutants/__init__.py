"""Executors that are wrong in one thing, one for each check: the model, spoiled. Each must fail that check alone.

A mutant is as narrow as a real fault would be, and where a fault of its kind would break half the suite, narrower.
They stand in modules that are named as those of the checks; `corpus.py` knows them all.
"""

from __future__ import annotations

from swarmcore.testing.executor_contract.mutants import (
    absence,
    commands,
    crowd,
    description,
    health,
    leaks,
    output,
    recovery,
    states,
    stopping,
)
from swarmcore.testing.executor_contract.mutants.corpus import LITTER, MUTANTS

__all__ = [
    "LITTER",
    "MUTANTS",
    "absence",
    "commands",
    "crowd",
    "description",
    "health",
    "leaks",
    "output",
    "recovery",
    "states",
    "stopping",
]
