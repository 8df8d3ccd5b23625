"""The suites for plugin authors find what is broken: one deliberately bad plugin for each rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from swarmcore.plugin.scheduling import Check, ClusterView, Filter, Mask, NodeView, Strategy, TaskGroup
from swarmcore.scheduler.view import View
from swarmcore.testing.scheduling import FilterContract, StrategyContract, make_group, make_node, make_view


class Rack:
    """The example of the documentation."""

    name, order, dynamic = "rack", 500, False

    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | Check | None:
        rack = group.labels.get("rack")
        return view.label("rack", rack) if rack else None

    def explain(self, nodes: int) -> str:
        return f"wrong rack on {nodes} node{'s' if nodes != 1 else ''}"


class RackCase(FilterContract):
    filter: type[Any] = Rack

    def make_filter(self) -> Filter:
        made: Filter = self.filter()
        return made

    def make_group(self) -> TaskGroup:
        return make_group(labels={"rack": "r7"})

    def make_view(self) -> View:
        return make_view([make_node("a", labels={"rack": "r7"}), make_node("b"), make_node("c", labels={"rack": "r8"})])

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node.node.spec.annotations.labels.get("rack") == "r7"


class TestTheExample(RackCase):
    pass


class WrongMask(Rack):
    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | None:
        return view.label("rack", "r8") if "rack" in group.labels else None


class Always(Rack):
    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask:
        return view.label("rack", "r7")


class DynamicMask(Rack):
    dynamic = True


class Dice(Rack):
    def prepare(self, group: TaskGroup, view: ClusterView) -> Check | None:
        return (lambda node: random.random() < 0.5) if "rack" in group.labels else None


class Memory(Rack):
    """Remembers its first answer for each node."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def prepare(self, group: TaskGroup, view: ClusterView) -> Check | None:
        def check(node: NodeView) -> bool:
            return self._known.setdefault(node.id, node.node.spec.annotations.labels.get("rack") == "r7")

        return check if "rack" in group.labels else None


class Ghosts(Rack):
    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | None:
        return Mask(view.label("rack", "r7") | 1 << 40 | 1) if "rack" in group.labels else None


class Meddler(Rack):
    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | Check | None:
        for node in view.nodes:
            if node is not None:
                node.node.spec.annotations.labels["seen"] = "yes"
        return super().prepare(group, view)


class Chatty(Rack):
    def explain(self, nodes: int) -> str:
        return f"wrong rack\non {nodes}"


class Slow(Rack):
    async def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | None:  # type: ignore[override]
        return None


BROKEN_FILTERS = {
    WrongMask: "test_its_answer_agrees_with_what_is_expected_of_each_node",
    Always: "test_it_does_not_apply_to_a_group_that_does_not_ask_for_it",
    DynamicMask: "test_a_mask_is_for_what_stays_as_it_is_and_a_check_for_what_placing_changes",
    Memory: "test_a_changed_node_is_seen",
    Ghosts: "test_a_mask_names_only_nodes_that_exist",
    Meddler: "test_it_changes_nothing",
    Chatty: "test_it_explains_itself_in_one_line",
    Slow: "test_the_core_accepts_its_shape",
}


@pytest.mark.parametrize(("broken", "test"), BROKEN_FILTERS.items())
def test_a_broken_filter_is_found(broken: type[Any], test: str) -> None:
    case = type("Case", (RackCase,), {"filter": broken})()

    with pytest.raises(Exception):  # noqa: B017, PT011 - an assertion of the suite, or the loader's refusal
        getattr(case, test)()


def test_an_answer_by_chance_is_found() -> None:
    class Case(RackCase):
        filter = Dice

        def make_view(self) -> View:
            return make_view([make_node(f"n{number}") for number in range(64)])

    with pytest.raises(AssertionError):
        Case().test_the_same_question_gets_the_same_answer()


class Least:
    """A strategy as short as can be."""

    name = "least"

    def rank(self, group: TaskGroup, view: ClusterView) -> Callable[[NodeView], tuple[int, ...]]:
        return lambda node: (node.active_tasks,)


class LeastCase(StrategyContract):
    strategy: type[Any] = Least

    def make_strategy(self) -> Strategy:
        made: Strategy = self.strategy()
        return made


class TestTheShortestStrategy(LeastCase):
    pass


class Floats(Least):
    def rank(self, group: TaskGroup, view: ClusterView) -> Callable[[NodeView], Any]:
        return lambda node: (node.active_tasks / 2,)


class Random(Least):
    def rank(self, group: TaskGroup, view: ClusterView) -> Callable[[NodeView], tuple[int, ...]]:
        return lambda node: (random.randrange(1 << 60),)


class Overfull(Least):
    def place(self, group: Any, view: Any, count: int, candidates: Any, fits: Any) -> Any:
        return iter([candidates[0]] * count) if candidates else iter(())


class Early(Least):
    def place(self, group: Any, view: Any, count: int, candidates: Any, fits: Any) -> Any:
        return iter(candidates[:count])


BROKEN_STRATEGIES = {
    Floats: "test_a_rank_is_a_tuple_of_integers_that_are_compared",
    Random: "test_a_rank_stays_the_same_while_nothing_changes",
    Overfull: "test_it_stops_when_every_node_is_full",
    Early: "test_every_task_gets_a_node_while_there_is_room",
}


@pytest.mark.parametrize(("broken", "test"), BROKEN_STRATEGIES.items())
def test_a_broken_strategy_is_found(broken: type[Any], test: str) -> None:
    case = type("Case", (LeastCase,), {"strategy": broken})()

    with pytest.raises(AssertionError):
        getattr(case, test)()
