"""Mistakes made on purpose, one at a time, each of which the simulation must find.

A mutant is the real code with one method replaced while it is in force. They are the measure of the simulation: a fault
that none of them needs finds nothing, and a mutant that survives shows what is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from swarmcore.testing.simulation.run import simulate

_Patch = Any
_MUTANTS: list[Mutant] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One mistake: what it is, and what puts it in force."""

    name: str
    mistake: str
    patches: Callable[[], list[_Patch]]

    @contextmanager
    def in_force(self) -> Iterator[None]:
        with ExitStack() as stack:
            for one in self.patches():
                stack.enter_context(one)
            yield

    def seeds_until_found(self, most: int) -> int | None:
        """How many seeds, from 0 on, it takes to find this; None when `most` are not enough."""
        with self.in_force():
            for seed in range(most):
                if simulate(seed).violation is not None:
                    return seed + 1
        return None


def mutant(make: Callable[[], list[_Patch]]) -> Callable[[], list[_Patch]]:
    """Note a mutant: its name is the function's, and the mistake is its docstring."""
    _MUTANTS.append(Mutant(name=make.__name__, mistake=make.__doc__ or "", patches=make))
    return make


def method(owner: Any, name: str, new: Any) -> _Patch:
    """`new` in the place of a method of `owner`."""
    return patch.object(owner, name, new)


def around(owner: Any, name: str, wrap: Callable[..., Any]) -> _Patch:
    """`wrap(real, self, ...)` in the place of a method of `owner`."""
    real = getattr(owner, name)

    def mutated(self: Any, *args: Any, **named: Any) -> Any:
        return wrap(real, self, *args, **named)

    return patch.object(owner, name, mutated)


def all_mutants() -> tuple[Mutant, ...]:
    """Every mutant there is."""
    from swarmcore.testing.simulation import agreement_mutants, storage_mutants  # noqa: F401 - they note theirs

    return tuple(_MUTANTS)
