"""Spread and binpack through the contract suite, and what tells them apart."""

from __future__ import annotations

from collections import Counter

import pytest
from swarmcore_spread_scheduler import BinpackStrategy, SpreadStrategy

from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.plugin.scheduling import Strategy, TaskGroup
from swarmcore.scheduler.view import View
from swarmcore.testing.scheduling import StrategyContract, make_group, make_node, make_task, make_view


def preferring(*descriptors: str) -> TaskGroup:
    spec = TaskSpec()
    for descriptor in descriptors:
        spec.placement.preferences.add().spread.spread_descriptor = descriptor
    return make_group(spec)


class TestSpread(StrategyContract):
    def make_strategy(self) -> Strategy:
        return SpreadStrategy()

    def test_it_is_even(self) -> None:
        assert Counter(self.choose(self.make_view(), 9)).most_common()[-1][1] == 2


class TestSpreadWithPreferences(StrategyContract):
    def make_strategy(self) -> Strategy:
        return SpreadStrategy()

    def make_group(self) -> TaskGroup:
        return preferring("node.labels.zone", "engine.labels.disk")

    def make_view(self) -> View:
        nodes = [
            make_node("a", labels={"zone": "z1"}, engine_labels={"disk": "ssd"}),
            make_node("b", labels={"zone": "z1"}, engine_labels={"disk": "ssd"}),
            make_node("c", labels={"zone": "z1"}),
            make_node("d", labels={"zone": "z2"}),
        ]
        return make_view(nodes)

    def test_each_level_is_even_inside_the_one_above(self) -> None:
        assert Counter(self.choose(self.make_view(), 16)) == {"d": 8, "c": 4, "a": 2, "b": 2}


class TestBinpack(StrategyContract):
    def make_strategy(self) -> Strategy:
        return BinpackStrategy()

    def test_it_fills_one_node_before_the_next(self) -> None:
        assert self.choose(self.make_view(), 5, most_per_node=3) == ["b", "b", "b", "a", "a"]


def test_binpack_takes_the_node_with_the_least_left_of_what_is_reserved() -> None:
    spec = TaskSpec()
    spec.resources.reservations.memory_bytes = 1
    used = make_task("t", spec=spec, service="other", node="b", state=TaskState.RUNNING)
    view = make_view([make_node("a", memory_bytes=4), make_node("b", memory_bytes=4)], [used])
    key = BinpackStrategy().rank(make_group(spec), view)

    assert min(view.select(view.all), key=key).id == "b"


def test_tasks_on_nodes_that_take_no_more_count_in_their_branch() -> None:
    running = [make_task(f"t{number}", node="full", state=TaskState.RUNNING) for number in range(4)]
    nodes = [
        make_node("full", labels={"zone": "z1"}),
        make_node("a", labels={"zone": "z1"}),
        make_node("b", labels={"zone": "z2"}),
    ]
    view = make_view(nodes, running)
    candidates = [node for node in view.select(view.all) if node.id != "full"]

    walk = SpreadStrategy().place(preferring("node.labels.zone"), view, 4, candidates, lambda node: True)

    assert walk is not None
    assert [node.id for node in walk] == ["b"] * 4


@pytest.mark.parametrize("descriptor", ["node.id", "rack", "node.labels.", "engine.labels.", ""])
def test_a_preference_that_is_not_a_label_is_left_out(descriptor: str) -> None:
    assert SpreadStrategy().place(preferring(descriptor), make_view([]), 1, [], lambda node: True) is None
