"""The checker of histories agrees with a search through every order."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from swarmcore.testing.simulation.history import Operation, Outcome, check


def operation(value: int | None, invoked: int, returned: int | None, *result: int) -> Operation:
    outcome = Outcome.OPEN if returned is None else Outcome.DONE
    return Operation(key="x", value=value, invoked=invoked, returned=returned, outcome=outcome, result=result)


def explains(order: tuple[Operation, ...], final: tuple[int, ...]) -> bool:
    """Whether doing the operations in this order gives their results, the final list, and respects time."""
    for at, later in enumerate(order):
        for earlier in order[:at]:
            if later.returned is not None and later.returned < earlier.invoked:
                return False
    state: tuple[int, ...] = ()
    for one in order:
        if one.value is not None:
            state += (one.value,)
        if one.returned is not None and one.result != state:
            return False
    return state == final


def search(operations: list[Operation], final: tuple[int, ...]) -> bool:
    """Whether any order explains the operations; those without an answer may be left out."""
    done = [one for one in operations if one.returned is not None]
    open = [one for one in operations if one.returned is None and one.value in final]
    return any(explains(order, final) for order in permutations(done + open))


@pytest.mark.parametrize("seed", range(400))
def test_it_finds_what_a_search_finds(seed: int) -> None:
    chance = Random(seed)
    final = tuple(chance.sample(range(1, 4), chance.randrange(4)))
    operations = []
    for value in (1, 2, 3, None, None):
        invoked = chance.randrange(30) * 2
        returned = invoked + chance.randrange(1, 16) * 2 + 1 if chance.random() < 0.8 else None
        length = chance.randrange(len(final) + 1)
        if value in final and chance.random() < 0.8:
            length = final.index(value) + 1
        operations.append(operation(value, invoked, returned, *(final[:length] if returned is not None else ())))

    found = check(operations, {"x": final})

    assert (found is None) == search(operations, final), found


def test_a_refused_append_that_is_there_is_found() -> None:
    refused = operation(1, 1, None)
    refused.outcome = Outcome.REFUSED

    assert check([refused], {"x": (1,)}) == "the append of 1 to x was refused, and is there"


def test_an_acknowledged_append_that_is_lost_is_found() -> None:
    lost = check([operation(1, 1, 2, 1)], {})

    assert lost is not None
    assert "is lost" in lost
