"""What clients asked and got, and whether one order explains all of it (linearizability).

The objects are lists that are only appended to, and no value twice. So the order of the appends is known from the
final list, each operation has one place in it, and checking is a sort instead of a search: a read that returned n
values stands after the n-th append and before the next. `check` is complete: the tests compare it with a search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    OPEN = "open"
    """No answer, or one that leaves open whether it was done."""
    DONE = "done"
    REFUSED = "refused"
    """The answer said that nothing was changed."""


@dataclass(slots=True, kw_only=True)
class Operation:
    """An append of `value` to the list `key`, or a read of it when `value` is None."""

    key: str
    value: int | None
    invoked: int
    """Places in the order of all invocations and answers."""
    returned: int | None = None
    outcome: Outcome = Outcome.OPEN
    result: tuple[int, ...] = ()
    """What was read; for an append: the list with the value added."""


def check(operations: Iterable[Operation], final: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return what no order of the operations explains, or None when one does. `final` is each list at the end."""
    by_key: dict[str, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(operation.key, []).append(operation)
    for key, some in by_key.items():
        found = _check_list(key, some, final.get(key, ()))
        if found is not None:
            return found
    return None


def _check_list(key: str, operations: list[Operation], final: tuple[int, ...]) -> str | None:
    places = {value: place for place, value in enumerate(final, 1)}
    if len(places) != len(final):
        return f"{key} holds a value twice: {final}"
    timed: list[tuple[int, bool, Operation, int]] = []
    known = {operation.value for operation in operations}
    if unasked := [value for value in final if value not in known]:
        return f"{key} holds {unasked}, which nobody appended"
    for operation in operations:
        place = len(operation.result) if operation.value is None else places.get(operation.value)
        if operation.value is not None and operation.outcome is Outcome.REFUSED and place is not None:
            return f"the append of {operation.value} to {key} was refused, and is there"
        if operation.outcome is Outcome.DONE:
            if place is None:
                return f"the append of {operation.value} to {key} was acknowledged, and is lost: {final}"
            if operation.result != final[:place]:
                return f"{key} was seen as {operation.result}, and became {final}"
            assert operation.returned is not None
            timed.append((operation.returned, True, operation, place))
        elif operation.value is None:
            continue
        if place is not None:
            timed.append((operation.invoked, False, operation, place))
    newest = 0
    for _, is_return, operation, place in sorted(timed, key=lambda item: item[0]):
        if is_return:
            newest = max(newest, place)
        elif place < newest or (operation.value is not None and place == newest):
            what = "read" if operation.value is None else f"append of {operation.value}"
            return f"the {what} of {key} stands at {place}, and {newest} had been seen before it was asked for"
    return None
