"""Which slots a service gives up when it is scaled down."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.orchestrator.victims import Standing, choose_victims, standing_of

R, P = TaskState.RUNNING, TaskState.PREPARING


def slots(*entries: tuple[int, str, TaskState.ValueType]) -> dict[int, Standing]:
    made: dict[int, list[Task]] = {}
    for number, node, state in entries:
        task = Task(id=f"{number}-{node}", slot=number, node_id=node)
        task.status.state = state
        made.setdefault(number, []).append(task)
    return {number: standing_of(tasks) for number, tasks in made.items()}


@pytest.mark.parametrize(
    ("entries", "keep", "victims"),
    [
        pytest.param([(1, "a", R), (2, "a", R), (3, "b", R)], 2, [2], id="the fullest node gives"),
        pytest.param([(1, "a", R), (2, "b", R), (3, "a", R), (4, "b", R)], 2, [4, 3], id="higher numbers first"),
        pytest.param([(1, "a", P), (2, "a", R), (3, "b", R)], 2, [1], id="what does not run before what runs"),
        pytest.param([(1, "", P), (2, "a", R), (3, "a", R)], 2, [1], id="what is on no node goes first"),
        pytest.param([(1, "a", R), (1, "b", R), (2, "a", R), (3, "a", R)], 2, [1], id="several tasks go first"),
        pytest.param([(1, "a", R)], 0, [1], id="all go"),
        pytest.param([(1, "a", R)], 5, [], id="none goes"),
    ],
)
def test_the_order_of_giving_up(
    entries: list[tuple[int, str, TaskState.ValueType]], keep: int, victims: list[int]
) -> None:
    assert choose_victims(slots(*entries), keep) == victims


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from([R, P])), max_size=40),
    st.integers(0, 40),
)
def test_what_stays_is_spread_as_evenly_as_it_can_be(placed: list[tuple[str, TaskState.ValueType]], keep: int) -> None:
    all_slots = slots(*((number, node, state) for number, (node, state) in enumerate(placed, 1)))
    before = Counter(node for node, _ in placed)

    victims = choose_victims(all_slots, keep)

    assert len(victims) == max(0, len(placed) - keep)
    after = before - Counter(placed[number - 1][0] for number in victims)
    # A node that gave something has no more than any other, but for one.
    fullest = max(after.values(), default=0)
    assert all(after[node] >= fullest - 1 for node in before if after[node] < before[node])
