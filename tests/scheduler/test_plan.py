"""Rounds on values: groups in, decisions out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarmcore_constraint_filter import ConstraintFilter
from swarmcore_node_filters import swarmcore_scheduler_filters
from swarmcore_spread_scheduler import SpreadStrategy

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.specs_pb2 import NodeSpec, TaskSpec
from swarmcore.api.types_pb2 import NodeStatus, PortConfig, TaskState
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.plugin.scheduling import Check, ClusterView, Mask, NodeView, Reasoned, TaskGroup
from swarmcore.scheduler.backlog import Backlog
from swarmcore.scheduler.decision import Assign, Decision, Report
from swarmcore.scheduler.plan import plan
from swarmcore.scheduler.view import View
from swarmcore.testing.scheduling import make_node, make_plugins, make_service, make_task, make_view

ALL = make_plugins(filters=[ConstraintFilter(), *swarmcore_scheduler_filters()], strategies=[SpreadStrategy()])


def decide(
    view: View, tasks: Iterable[Task], plugins: PluginSet = ALL, *, limit: int = 1_000_000, now: float = 1_000.0
) -> list[Decision]:
    backlog = Backlog()
    for task in tasks:
        backlog.add(task)
    return plan(view, backlog, plugins, strategy="spread", now=now, limit=limit)


def nodes_of(decisions: Iterable[Decision]) -> list[str]:
    return [decision.node.id for decision in decisions if isinstance(decision, Assign)]


def reasons(decisions: Iterable[Decision]) -> list[str]:
    return [decision.err for decision in decisions if isinstance(decision, Report)]


def waiting(count: int, spec: TaskSpec | None = None, service: str = "web") -> list[Task]:
    return [make_task(f"{service}-{number}", service=service, spec=spec) for number in range(count)]


def reserving(nano_cpus: int = 0, memory_bytes: int = 0, **generic: int) -> TaskSpec:
    spec = TaskSpec()
    reservations = spec.resources.reservations
    reservations.nano_cpus, reservations.memory_bytes = nano_cpus, memory_bytes
    for kind, count in generic.items():
        wanted = reservations.generic.add().discrete_resource_spec
        wanted.kind, wanted.value = kind, count
    return spec


WEB = [make_service("web")]


# Spreading


@given(before=st.lists(st.integers(0, 5), min_size=1, max_size=12), count=st.integers(0, 60))
def test_tasks_of_a_service_are_even_as_far_as_there_are_enough_of_them(before: list[int], count: int) -> None:
    running = [
        make_task(f"r{node}-{number}", node=f"n{node}", state=TaskState.RUNNING)
        for node, tasks in enumerate(before)
        for number in range(tasks)
    ]
    view = make_view([make_node(f"n{number}") for number in range(len(before))], running, WEB)

    chosen = Counter(nodes_of(decide(view, waiting(count))))

    assert sum(chosen.values()) == count
    after = {f"n{node}": tasks + chosen[f"n{node}"] for node, tasks in enumerate(before)}
    placed_on = [after[node] for node in chosen]
    assert not placed_on or max(placed_on) - min(after.values()) <= 1


def test_among_equal_nodes_the_one_with_the_fewest_tasks_of_all_is_taken() -> None:
    running = [make_task("other", service="other", node="a", state=TaskState.RUNNING)]
    view = make_view([make_node("a"), make_node("b")], running, WEB)

    assert nodes_of(decide(view, waiting(1))) == ["b"]


@given(racks=st.lists(st.sampled_from(["", "r1", "r2", "r3"]), min_size=1, max_size=12), count=st.integers(1, 40))
def test_a_preference_divides_tasks_evenly_over_the_values_of_its_label(racks: list[str], count: int) -> None:
    spec = TaskSpec()
    spec.placement.preferences.add().spread.spread_descriptor = "node.labels.rack"
    nodes = [make_node(f"n{i}", labels={"rack": rack} if rack else {}) for i, rack in enumerate(racks)]

    chosen = nodes_of(decide(make_view(nodes, (), WEB), waiting(count, spec)))

    assert len(chosen) == count
    each_rack = Counter(racks[int(id[1:])] for id in chosen)
    in_racks = [each_rack[rack] for rack in set(racks)]
    assert max(in_racks) - min(in_racks) <= 1
    for rack in set(racks):
        each_node = [chosen.count(f"n{i}") for i, other in enumerate(racks) if other == rack]
        assert max(each_node) - min(each_node) <= 1


def test_a_full_branch_leaves_its_share_to_the_others() -> None:
    spec = reserving(nano_cpus=2_000_000_000)
    spec.placement.preferences.add().spread.spread_descriptor = "node.labels.rack"
    nodes = [
        make_node("a", labels={"rack": "r1"}, nano_cpus=2_000_000_000),
        make_node("b", labels={"rack": "r2"}, nano_cpus=10_000_000_000),
    ]

    assert Counter(nodes_of(decide(make_view(nodes, (), WEB), waiting(5, spec)))) == {"a": 1, "b": 4}


def test_five_recent_failures_put_a_node_last_until_they_are_five_minutes_old() -> None:
    view = make_view([make_node("a"), make_node("b")], (), WEB)
    view.clock[0] = 1_000.0
    for number in range(5):
        view.put_task(make_task(f"f{number}", node="a", state=TaskState.RUNNING))
        view.put_task(make_task(f"f{number}", node="a", state=TaskState.FAILED))

    assert nodes_of(decide(view, waiting(3), now=1_100.0)) == ["b", "b", "b"]
    assert nodes_of(decide(view, waiting(1, service="other"), now=1_100.0)) == ["a"]
    assert "a" in nodes_of(decide(view, [make_task("late")], now=1_301.0))


# Resources


@given(
    capacities=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=6),
    groups=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 12)), min_size=1, max_size=4),
)
def test_no_node_ever_has_more_reserved_than_it_has(
    capacities: list[tuple[int, int]], groups: list[tuple[int, int, int]]
) -> None:
    nodes = [make_node(f"n{i}", nano_cpus=cpus, memory_bytes=memory) for i, (cpus, memory) in enumerate(capacities)]
    names = [f"s{number}" for number in range(len(groups))]
    view = make_view(nodes, (), [make_service(name) for name in names])
    tasks = [
        task
        for name, (cpus, memory, count) in zip(names, groups, strict=True)
        for task in waiting(count, reserving(cpus, memory), name)
    ]

    decisions = decide(view, tasks)

    left = {node.id: [node.description.resources.nano_cpus, node.description.resources.memory_bytes] for node in nodes}
    waiting_for: set[str] = {task.id for task in tasks}
    for decision in decisions:
        if isinstance(decision, Assign):
            reserved = decision.task.spec.resources.reservations
            left[decision.node.id][0] -= reserved.nano_cpus
            left[decision.node.id][1] -= reserved.memory_bytes
            waiting_for.discard(decision.task.id)
    assert all(part >= 0 for parts in left.values() for part in parts)
    for task in tasks:
        if task.id in waiting_for:
            reserved = task.spec.resources.reservations
            assert not any(
                cpus >= reserved.nano_cpus and memory >= reserved.memory_bytes for cpus, memory in left.values()
            ), "a task waits though there is room"


def test_generic_resources_are_assigned_by_name_once_each_and_by_count() -> None:
    view = make_view([make_node("a", generic={"gpu": ["g1", "g2", "g3"], "ssd": 4})], (), WEB)

    decisions = decide(view, waiting(2, reserving(gpu=1, ssd=2)))

    assigned = [
        sorted((r.named_resource_spec.value or str(r.discrete_resource_spec.value)) for r in decision.generic)
        for decision in decisions
        if isinstance(decision, Assign)
    ]
    assert assigned == [["2", "g1"], ["2", "g2"]]
    assert reasons(decide(view, [make_task("one-more", spec=reserving(ssd=1))])) == [
        "no suitable node (insufficient resources on 1 node)"
    ]


def test_a_host_port_is_given_once_on_each_node() -> None:
    tasks = waiting(3)
    for task in tasks:
        task.endpoint.ports.add(publish_mode=PortConfig.HOST, published_port=80, target_port=80)

    decisions = decide(make_view([make_node("a"), make_node("b")], (), WEB), tasks)

    assert sorted(nodes_of(decisions)) == ["a", "b"]
    assert reasons(decisions) == ["no suitable node (host-mode port already in use on 2 nodes)"]


def test_max_replicas_bounds_the_tasks_of_a_service_on_a_node() -> None:
    spec = TaskSpec()
    spec.placement.max_replicas = 2

    decisions = decide(make_view([make_node("a"), make_node("b")], (), WEB), waiting(5, spec))

    assert Counter(nodes_of(decisions)) == {"a": 2, "b": 2}
    assert reasons(decisions) == ["no suitable node (max replicas per node limit exceed)"]


# Why not


def test_the_explanation_names_what_removed_most_nodes_first() -> None:
    spec = reserving(nano_cpus=5_000_000_000)
    spec.placement.constraints.append("node.labels.rack==r7")
    nodes = [
        make_node("down", state=NodeStatus.DOWN),
        make_node("paused", availability=NodeSpec.PAUSE),
        make_node("small"),
        *[make_node(f"big{i}", nano_cpus=8_000_000_000) for i in range(3)],
    ]

    assert reasons(decide(make_view(nodes, (), WEB), waiting(1, spec))) == [
        "no suitable node (scheduling constraints not satisfied on 3 nodes; "
        "2 nodes not available for new tasks; insufficient resources on 1 node)"
    ]


def test_without_nodes_there_is_nothing_to_explain() -> None:
    assert reasons(decide(make_view([], (), WEB), waiting(1))) == ["no suitable node"]


def test_a_status_that_says_so_already_is_not_written_again() -> None:
    task = make_task("t1")
    task.status.err = "no suitable node"

    assert decide(make_view([], (), WEB), [task]) == []


def test_a_preassigned_task_that_does_not_fit_says_only_why() -> None:
    view = make_view([make_node("a", availability=NodeSpec.DRAIN)], (), WEB)

    assert reasons(decide(view, [make_task("t1", node="a")])) == ["1 node not available for new tasks"]


def test_preassigned_tasks_come_first() -> None:
    spec = reserving(nano_cpus=3_000_000_000)
    tasks = [make_task("any", spec=spec), make_task("here", service="agent", spec=spec, node="a")]

    decisions = decide(make_view([make_node("a")], (), [*WEB, make_service("agent")]), tasks)

    assert [each.task.id for each in decisions if isinstance(each, Assign)] == ["here"]
    assert reasons(decisions) == ["no suitable node (insufficient resources on 1 node)"]


def test_a_runtime_goes_only_where_an_executor_for_it_is() -> None:
    spec = TaskSpec()
    spec.generic.kind = "process"
    nodes = [make_node("stock"), make_node("ours", plugins=[("swarmcore/executor", "process")])]

    assert nodes_of(decide(make_view(nodes, (), WEB), waiting(2, spec))) == ["ours", "ours"]
    assert nodes_of(decide(make_view(nodes, (), WEB), waiting(2))) == ["stock", "stock"]
    assert reasons(decide(make_view(nodes[:1], (), WEB), waiting(1, spec))) == [
        "no suitable node (no executor for 'process' tasks on 1 node)"
    ]


class _PickyFilter:
    """Removes a node for a reason that only the group tells."""

    name, order, dynamic = "picky", 10, False

    def prepare(self, group: TaskGroup, view: ClusterView) -> Reasoned:
        return Reasoned(Mask(view.all & ~1), lambda nodes: f"{group.service_id} likes {nodes} less")

    def explain(self, nodes: int) -> str:
        return "not like this"


def test_a_filter_may_give_a_reason_for_each_group() -> None:
    plugins = make_plugins(filters=[_PickyFilter()], strategies=[SpreadStrategy()])

    assert reasons(decide(make_view([make_node("a")], (), WEB), waiting(1), plugins)) == [
        "no suitable node (web likes 1 less)"
    ]


def test_tasks_of_a_service_that_is_gone_are_dropped_without_a_word() -> None:
    assert decide(make_view([]), waiting(3)) == []


def test_tasks_of_an_older_version_that_fit_nowhere_say_why_and_go_on_waiting() -> None:
    view, backlog = make_view([], (), [make_service("web", version=2)]), Backlog()
    for task in waiting(3):
        backlog.add(task)

    decisions = plan(view, backlog, ALL, strategy="spread", now=0, limit=100)
    assert reasons(decisions) == ["no suitable node"] * 3

    view.put_node(make_node("a"))
    backlog.wake_all()
    assert nodes_of(plan(view, backlog, ALL, strategy="spread", now=0, limit=100)) == ["a"] * 3


# Plugins that are missing or fail


def constrained(task: Task) -> None:
    task.spec.placement.constraints.append("node.role==worker")


def with_memory(task: Task) -> None:
    task.spec.resources.reservations.memory_bytes = 1


def with_platform(task: Task) -> None:
    task.spec.placement.platforms.add(os="linux")


def with_host_port(task: Task) -> None:
    task.endpoint.ports.add(publish_mode=PortConfig.HOST, published_port=80)


def with_max_replicas(task: Task) -> None:
    task.spec.placement.max_replicas = 1


def with_log_driver(task: Task) -> None:
    task.spec.log_driver.name = "syslog"


@pytest.mark.parametrize(
    ("filter", "use"),
    [
        ("constraint", constrained),
        ("resource", with_memory),
        ("platform", with_platform),
        ("host-port", with_host_port),
        ("max-replicas", with_max_replicas),
        ("plugin", with_log_driver),
    ],
)
def test_without_a_filter_exactly_the_tasks_that_need_it_are_held(filter: str, use: Callable[[Task], None]) -> None:
    plugins = make_plugins(filters=[each for each in ALL.filters if each.name != filter], strategies=[SpreadStrategy()])
    needy = make_task("needy")
    use(needy)
    view = make_view([make_node("a")], (), [*WEB, make_service("plain")])

    decisions = decide(view, [needy, make_task("plain", service="plain")], plugins)

    assert nodes_of(decisions) == ["a"]
    assert reasons(decisions) == [f"held: filter/{filter} is not available: no plugin provides it"]


class Choosy:
    """A filter that does as a test says."""

    name, order, dynamic = "choosy", 50, False

    def __init__(self, answer: Callable[[NodeView], bool] | None = None) -> None:
        self._answer = answer

    def prepare(self, group: TaskGroup, view: ClusterView) -> Check | None:
        if self._answer is None:
            raise KeyError("numa")
        return self._answer

    def explain(self, nodes: int) -> str:
        return f"not to the taste of {nodes}"


def test_a_filter_that_raises_holds_the_group_and_names_itself() -> None:
    plugins = make_plugins(filters=[Choosy()], strategies=[SpreadStrategy()])

    decisions = decide(make_view([make_node("a")], (), WEB), waiting(2), plugins)

    assert reasons(decisions) == ["held: filter/choosy failed: KeyError: 'numa'"] * 2


def raises_on(*ids: str) -> Callable[[NodeView], bool]:
    def check(node: NodeView) -> bool:
        if node.id in ids:
            raise KeyError("numa")
        return True

    return check


def test_a_check_that_raises_removes_the_node() -> None:
    plugins = make_plugins(filters=[Choosy(raises_on("a"))], strategies=[SpreadStrategy()])

    assert nodes_of(decide(make_view([make_node("a"), make_node("b")], (), WEB), waiting(2), plugins)) == ["b", "b"]


def test_a_check_that_raises_on_every_node_holds_the_group() -> None:
    nodes = [make_node(f"n{number}") for number in range(6)]
    plugins = make_plugins(filters=[Choosy(raises_on(*(node.id for node in nodes)))], strategies=[SpreadStrategy()])

    decisions = decide(make_view(nodes, (), WEB), waiting(1), plugins)

    assert reasons(decisions) == ["held: filter/choosy is failing: KeyError: 'numa' in check"]


class Stubborn:
    """A strategy that always wants the first node."""

    name = "spread"

    def rank(self, group: TaskGroup, view: ClusterView) -> Callable[[NodeView], tuple[int, ...]]:
        return lambda node: (0,)

    def place(self, group, view, count, candidates, fits):  # type: ignore[no-untyped-def]
        while True:
            yield candidates[0]


def test_a_strategy_that_chooses_what_does_not_fit_places_what_fits_and_holds_the_rest() -> None:
    plugins = make_plugins(filters=ALL.filters, strategies=[Stubborn()])
    view = make_view([make_node("a"), make_node("b")], (), WEB)

    decisions = decide(view, waiting(3, reserving(nano_cpus=4_000_000_000)), plugins)

    assert nodes_of(decisions) == ["a"]
    assert reasons(decisions) == ["held: strategy/spread failed: ValueError: it chose node 'a', which does not fit"] * 2


# Rounds


def test_a_large_group_does_not_keep_a_small_one_waiting() -> None:
    view = make_view([make_node("a")], (), [*WEB, make_service("small")])
    backlog = Backlog()
    for task in [*waiting(100), *waiting(1, service="small")]:
        backlog.add(task)

    rounds = [plan(view, backlog, ALL, strategy="spread", now=0.0, limit=10) for _ in range(3)]

    assert [len(each) for each in rounds] == [10, 10, 10]
    assert rounds[1][0].task.service_id == "small"


def test_what_was_never_tried_goes_before_what_waits_for_long() -> None:
    view = make_view([make_node("a")], (), [*WEB, make_service("new")])
    backlog = Backlog()
    backlog.add(make_task("old", spec=reserving(nano_cpus=10_000_000_000)))
    plan(view, backlog, ALL, strategy="spread", now=0.0, limit=10)

    backlog.wake_all()
    backlog.add(make_task("new", service="new"))

    assert [group.service_id for group in backlog.ready()] == ["new", "web"]


def test_a_large_group_is_not_told_of_every_node_that_comes() -> None:
    view = make_view([], (), WEB)
    backlog = Backlog()
    tasks = waiting(200, reserving(nano_cpus=10_000_000_000))
    for task in tasks:
        backlog.add(task)

    def told(now: float) -> set[str]:
        backlog.wake_all()
        decisions = plan(view, backlog, ALL, strategy="spread", now=now, limit=1_000)
        for decision in decisions:
            assert isinstance(decision, Report)
            decision.task.status.err = decision.err
        return set(reasons(decisions))

    assert told(1.0) == {"no suitable node"}
    view.put_node(make_node("a"))
    assert told(2.0) == {"no suitable node (insufficient resources on 1 node)"}
    view.put_node(make_node("b"))
    assert told(3.0) == set()
    assert told(12.0) == {"no suitable node (insufficient resources on 2 nodes)"}


def test_many_small_rounds_decide_as_one_large_one() -> None:
    spec = reserving(nano_cpus=1_000_000_000)

    def placed(limit: int) -> Counter[str]:
        view = make_view([make_node("a"), make_node("b"), make_node("c")], (), WEB)
        backlog = Backlog()
        for task in waiting(15, spec):
            backlog.add(task)
        decisions: list[Decision] = []
        while backlog.is_ready:
            for decision in plan(view, backlog, ALL, strategy="spread", now=0.0, limit=limit):
                decisions.append(decision)
                if isinstance(decision, Report):
                    decision.task.status.err = decision.err
        return Counter(nodes_of(decisions))

    assert placed(1) == placed(4) == placed(1_000) == {"a": 4, "b": 4, "c": 4}


def test_tasks_without_a_version_are_one_group_where_they_are_identical() -> None:
    backlog = Backlog()
    for number in range(10):
        backlog.add(make_task(f"t{number}", version=None, spec=reserving(nano_cpus=number % 2)))

    assert len(list(backlog.ready())) == 2
