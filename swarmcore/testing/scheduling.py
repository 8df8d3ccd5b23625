"""For authors of filters and strategies: nodes and groups to try them on, and the suites that they must pass.

class TestRack(FilterContract):
    def make_filter(self) -> Filter:
        return Rack()

    def make_group(self) -> TaskGroup:
        return make_group(labels={"rack": "r7"})

    def make_view(self) -> View:
        return make_view([make_node("a", labels={"rack": "r7"}), make_node("b")])
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec, TaskSpec
from swarmcore.api.types_pb2 import NodeStatus, TaskState, Version
from swarmcore.plugin.capabilities import KINDS
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.plugin.scheduling import Check, Filter, Mask, NodeView, PlacingStrategy, Reasoned, Strategy, TaskGroup
from swarmcore.scheduler.backlog import runtime_of
from swarmcore.scheduler.node_state import NodeState
from swarmcore.scheduler.view import View

GIB = 1 << 30


def make_node(
    id: str,
    *,
    labels: Mapping[str, str] | None = None,
    engine_labels: Mapping[str, str] | None = None,
    nano_cpus: int = 4_000_000_000,
    memory_bytes: int = 8 * GIB,
    generic: Mapping[str, int | Sequence[str]] | None = None,
    os: str = "linux",
    architecture: str = "x86_64",
    plugins: Iterable[tuple[str, str]] = (),
    state: NodeStatus.State.ValueType = NodeStatus.READY,
    availability: NodeSpec.Availability.ValueType = NodeSpec.ACTIVE,
) -> Node:
    """A node that takes tasks, unless told otherwise; its hostname is its id. `generic`: a count, or names."""
    node = Node(id=id)
    node.spec.availability = availability
    node.spec.annotations.labels.update(labels or {})
    node.status.state = state
    description = node.description
    description.hostname = id
    description.platform.os = os
    description.platform.architecture = architecture
    description.engine.labels.update(engine_labels or {})
    for kind, name in plugins:
        description.engine.plugins.add(type=kind, name=name)
    description.resources.nano_cpus = nano_cpus
    description.resources.memory_bytes = memory_bytes
    for kind, amount in (generic or {}).items():
        if isinstance(amount, int):
            resource = description.resources.generic.add().discrete_resource_spec
            resource.kind, resource.value = kind, amount
        else:
            for value in amount:
                named = description.resources.generic.add().named_resource_spec
                named.kind, named.value = kind, value
    return node


def make_service(id: str, *, version: int = 1, labels: Mapping[str, str] | None = None) -> Service:
    """A service at one version of its spec."""
    service = Service(id=id, spec_version=Version(index=version))
    service.spec.annotations.name = id
    service.spec.annotations.labels.update(labels or {})
    return service


def make_task(
    id: str,
    *,
    service: str = "web",
    version: int | None = 1,
    spec: TaskSpec | None = None,
    node: str = "",
    state: TaskState.ValueType = TaskState.PENDING,
    desired: TaskState.ValueType = TaskState.RUNNING,
) -> Task:
    """A task that waits for a node, unless told otherwise."""
    task = Task(id=id, service_id=service, node_id=node, desired_state=desired)
    task.status.state = state
    if version is not None:
        task.spec_version.index = version
    if spec is not None:
        task.spec.CopyFrom(spec)
    else:
        task.spec.container.image = "redis"
    return task


def make_group(
    spec: TaskSpec | None = None,
    *,
    service: str = "web",
    labels: Mapping[str, str] | None = None,
    sample: Task | None = None,
) -> TaskGroup:
    """Tasks of one service; `sample` where more than the spec matters, such as ports and networks."""
    task = sample if sample is not None else make_task("sample", service=service, spec=spec)
    return TaskGroup(
        service_id=task.service_id,
        spec_version=task.spec_version.index if task.HasField("spec_version") else None,
        spec=task.spec,
        labels=dict(labels or {}),
        runtime=runtime_of(task),
        sample=task,
    )


def make_view(nodes: Iterable[Node], tasks: Iterable[Task] = (), services: Iterable[Service] = ()) -> View:
    """The scheduler's view of a cluster. `tasks` are placed where their node says; those without one are left out."""
    view = View()
    for service in services:
        view.services[service.id] = service
    for node in nodes:
        view.put_node(node)
    for task in tasks:
        if task.node_id:
            view.put_task(task)
    return view


def make_plugins(*, filters: Iterable[Filter] = (), strategies: Iterable[Strategy] = ()) -> PluginSet:
    """A set with these and nothing else, as the scheduler takes it."""
    return PluginSet(
        number=1,
        filters=tuple(sorted(filters, key=lambda each: (each.order, each.name))),
        strategies={strategy.name: strategy for strategy in strategies},
    )


def book(view: View, node: NodeView, group: TaskGroup, id: str) -> None:
    """Place one more task of the group, as the scheduler does after each choice."""
    state = view.node(node.id)
    assert state is not None
    view.book(id, group.service_id, state, view.footprint(group.sample))


def passing(answer: Mask | Check | Reasoned | None, view: View) -> list[str]:
    """The ids of the nodes that a filter's answer lets through, by index."""
    nodes = view.select(view.all)
    if isinstance(answer, Reasoned):
        answer = answer.answer
    if answer is None:
        return [node.id for node in nodes]
    if isinstance(answer, int):
        return [node.id for node in nodes if answer >> node.index & 1]
    return [node.id for node in nodes if answer(node)]


def _offer_check(kind: str) -> Callable[[object], None]:
    return next(each.check for each in KINDS if each.name == kind)


class FilterContract:
    """What every filter must hold to. Subclass it as `Test…`, and say how to make the filter and a case for it."""

    def make_filter(self) -> Filter:
        """The filter under test."""
        raise NotImplementedError

    def make_group(self) -> TaskGroup:
        """A group that the filter applies to."""
        raise NotImplementedError

    def make_view(self) -> View:
        """Nodes of which some pass and some do not."""
        raise NotImplementedError

    def expected(self, node: NodeView, group: TaskGroup) -> bool | None:
        """Whether the node passes, worked out in the simplest way; None where the test can't say."""
        return None

    def make_other_group(self) -> TaskGroup:
        """A group that does not use what the filter looks at."""
        return make_group()

    def test_the_core_accepts_its_shape(self) -> None:
        _offer_check("filter")(self.make_filter())

    def test_it_does_not_apply_to_a_group_that_does_not_ask_for_it(self) -> None:
        assert self.make_filter().prepare(self.make_other_group(), self.make_view()) is None

    def test_it_applies_and_removes_some_nodes_but_not_all(self) -> None:
        view = self.make_view()

        answer = self.make_filter().prepare(self.make_group(), view)

        assert answer is not None, "prepare returned None for a group that the filter applies to"
        assert 0 < len(passing(answer, view)) < len(view), "the case needs nodes that pass and nodes that do not"

    def test_a_mask_is_for_what_stays_as_it_is_and_a_check_for_what_placing_changes(self) -> None:
        each = self.make_filter()

        answer = each.prepare(self.make_group(), self.make_view())
        if isinstance(answer, Reasoned):
            answer = answer.answer

        assert not (each.dynamic and isinstance(answer, int)), "a dynamic filter must return a check, not a mask"

    def test_its_answer_agrees_with_what_is_expected_of_each_node(self) -> None:
        view, group = self.make_view(), self.make_group()
        nodes = view.select(view.all)
        expected = {node.id: self.expected(node, group) for node in nodes}

        passed = passing(self.make_filter().prepare(group, view), view)

        wrong = [id for id, answer in expected.items() if answer is not None and answer is not (id in passed)]
        assert wrong == [], f"mask or check disagrees about {wrong}"

    def test_a_mask_names_only_nodes_that_exist(self) -> None:
        view = self.make_view()
        view.remove_node(view.select(view.all)[0].id)

        answer = self.make_filter().prepare(self.make_group(), view)
        if isinstance(answer, Reasoned):
            answer = answer.answer

        if isinstance(answer, int):
            assert answer & ~view.all == 0

    def test_the_same_question_gets_the_same_answer(self) -> None:
        each, view = self.make_filter(), self.make_view()

        first = passing(each.prepare(self.make_group(), view), view)

        assert passing(each.prepare(self.make_group(), view), view) == first
        assert passing(self.make_filter().prepare(self.make_group(), view), view) == first

    def test_the_answer_does_not_depend_on_the_order_of_the_nodes(self) -> None:
        view = self.make_view()
        nodes = [node.node for node in view.select(view.all)]
        turned = make_view(reversed(nodes))
        straight = make_view(nodes)

        first = passing(self.make_filter().prepare(self.make_group(), straight), straight)

        assert sorted(passing(self.make_filter().prepare(self.make_group(), turned), turned)) == sorted(first)

    def test_a_changed_node_is_seen(self) -> None:
        view, each, group = self.make_view(), self.make_filter(), self.make_group()
        passed = passing(each.prepare(group, view), view)
        failing = next(node for node in view.select(view.all) if node.id not in passed)

        # A node that passes becomes, in all but its id, one that does not.
        changed = Node()
        changed.CopyFrom(failing.node)
        changed.id = passed[0]
        view.put_node(changed)

        fresh = self.make_filter().prepare(group, view)
        assert passing(each.prepare(group, view), view) == passing(fresh, view), "it remembers what a node was"

    def test_it_changes_nothing(self) -> None:
        view, group = self.make_view(), self.make_group()
        before = [node.node.SerializeToString(deterministic=True) for node in view.select(view.all)]
        sample = group.sample.SerializeToString(deterministic=True)

        passing(self.make_filter().prepare(group, view), view)

        assert [node.node.SerializeToString(deterministic=True) for node in view.select(view.all)] == before
        assert group.sample.SerializeToString(deterministic=True) == sample

    def test_it_explains_itself_in_one_line(self) -> None:
        each = self.make_filter()

        for nodes in (1, 2, 10_000):
            text = each.explain(nodes)
            assert isinstance(text, str) and text.strip() == text and text and "\n" not in text


class StrategyContract:
    """What every strategy must hold to. Subclass it as `Test…`, and say how to make the strategy."""

    def make_strategy(self) -> Strategy:
        """The strategy under test."""
        raise NotImplementedError

    def make_group(self) -> TaskGroup:
        """A group to be placed."""
        return make_group()

    def make_view(self) -> View:
        """At least three nodes."""
        tasks = [make_task("t1", service="other", node="b", state=TaskState.RUNNING)]
        return make_view([make_node(id) for id in "abcd"], tasks)

    def choose(self, view: View, count: int, most_per_node: int = 1_000_000) -> list[str]:
        """The nodes that `count` tasks go to, in order, when no node takes more than so many of the service."""
        group, strategy = self.make_group(), self.make_strategy()

        def fits(node: NodeView) -> bool:
            return node.service_tasks(group.service_id) < most_per_node

        nodes: list[NodeState] = [node for node in view.select(view.all) if fits(node)]
        walk = strategy.place(group, view, count, nodes, fits) if isinstance(strategy, PlacingStrategy) else None
        chosen: list[str] = []
        if walk is not None:
            for node in walk:
                assert fits(node), f"chose {node.id!r}, which takes no more"
                chosen.append(node.id)
                assert len(chosen) <= count, "chose more nodes than there are tasks"
                book(view, node, group, f"new-{len(chosen)}")
            return chosen
        key = strategy.rank(group, view)
        while len(chosen) < count and (fitting := [node for node in nodes if fits(node)]):
            best = min(fitting, key=lambda node: (key(node), node.index))
            chosen.append(best.id)
            book(view, best, group, f"new-{len(chosen)}")
        return chosen

    def test_the_core_accepts_its_shape(self) -> None:
        _offer_check("strategy")(self.make_strategy())

    def test_a_rank_is_a_tuple_of_integers_that_are_compared(self) -> None:
        view = self.make_view()
        key = self.make_strategy().rank(self.make_group(), view)

        ranks = [key(node) for node in view.select(view.all)]

        assert all(isinstance(rank, tuple) and all(type(part) is int for part in rank) for rank in ranks)
        assert len({len(rank) for rank in ranks}) == 1, "ranks of different lengths"

    def test_a_rank_stays_the_same_while_nothing_changes(self) -> None:
        view = self.make_view()
        key = self.make_strategy().rank(self.make_group(), view)
        first = [key(node) for node in view.select(view.all)]

        assert [key(node) for node in view.select(view.all)] == first
        other = self.make_strategy().rank(self.make_group(), view)
        assert [other(node) for node in view.select(view.all)] == first

    def test_equal_clusters_give_equal_placements(self) -> None:
        assert self.choose(self.make_view(), 9) == self.choose(self.make_view(), 9)

    def test_every_task_gets_a_node_while_there_is_room(self) -> None:
        assert len(self.choose(self.make_view(), 10)) == 10

    def test_it_stops_when_every_node_is_full(self) -> None:
        view = self.make_view()

        chosen = self.choose(view, 1_000, most_per_node=2)

        assert len(chosen) == 2 * len(view)

    def test_without_candidates_it_chooses_nothing(self) -> None:
        assert self.choose(make_view([]), 3) == []

    def test_its_methods_are_not_async(self) -> None:
        strategy = self.make_strategy()

        assert not inspect.iscoroutinefunction(strategy.rank)
