"""Masks of constraints, against matching node by node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from swarmcore_constraint_filter import ConstraintFilter

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.plugin.constraints import node_matches, parse
from swarmcore.plugin.scheduling import Filter, NodeView, TaskGroup
from swarmcore.scheduler.view import View
from swarmcore.testing.scheduling import FilterContract, make_group, make_node, make_view, passing


def group_with(*expressions: str) -> TaskGroup:
    spec = TaskSpec()
    spec.placement.constraints.extend(expressions)
    return make_group(spec)


class TestConstraintFilter(FilterContract):
    def make_filter(self) -> Filter:
        return ConstraintFilter()

    def make_group(self) -> TaskGroup:
        return group_with("node.labels.rack==R7", "node.hostname!=c")

    def make_view(self) -> View:
        return make_view(
            [make_node(id, labels={"rack": rack}) for id, rack in zip("abc", ("r7", "r8", "r7"), strict=True)]
        )

    def expected(self, node: NodeView, group: TaskGroup) -> bool:
        return node_matches(node.node, parse(group.spec.placement.constraints))


def with_identity(node: Node, role: NodeRole.ValueType, address: str, is_described: bool) -> Node:
    node.role = role
    node.status.addr = address
    if not is_described:
        node.ClearField("description")
    return node


WORDS = st.sampled_from(["", "ssd", "SSD", "disk", "r7"])
NODES = st.builds(
    with_identity,
    st.builds(
        make_node,
        st.uuids().map(str),
        labels=st.dictionaries(st.sampled_from(["disk", "Disk", "rack"]), WORDS, max_size=3),
        engine_labels=st.dictionaries(st.sampled_from(["disk", "rack"]), WORDS, max_size=2),
        os=st.sampled_from(["linux", "Linux", "windows"]),
        architecture=st.sampled_from(["x86_64", "amd64"]),
    ),
    st.sampled_from([NodeRole.WORKER, NodeRole.MANAGER]),
    st.sampled_from(["10.0.0.1", "10.1.0.1", "fd00::1", "", "nonsense"]),
    st.booleans(),
)
EXPRESSIONS = st.builds(
    "{}{}{}".format,
    st.sampled_from(
        [
            "node.labels.disk",
            "node.labels.Disk",
            "NODE.LABELS.rack",
            "engine.labels.disk",
            "node.role",
            "Node.Role",
            "node.ip",
            "node.platform.os",
            "node.platform.arch",
            "node.hostname",
            "node.colour",
            "node.labels.",
        ]
    ),
    st.sampled_from(["==", "!=", " == "]),
    st.sampled_from(["ssd", "Ssd", "r7", "worker", "MANAGER", "linux", "10.0.0.0/8", "10.0.0.1", "fd00::/8", "x86_64"]),
)


@given(
    nodes=st.lists(NODES, max_size=8, unique_by=lambda node: node.id),
    later=st.lists(NODES, max_size=3),
    expressions=st.lists(EXPRESSIONS, min_size=1, max_size=3),
)
def test_masks_say_what_matching_each_node_says(nodes: list[Node], later: list[Node], expressions: list[str]) -> None:
    view, group, each = make_view(nodes), group_with(*expressions), ConstraintFilter()
    each.prepare(group, view)
    for changed, node in zip(nodes, later, strict=False):
        node.id = changed.id
        view.put_node(node)

    passed = passing(each.prepare(group, view), view)

    constraints = parse(expressions)
    assert passed == [node.id for node in view.select(view.all) if node_matches(node.node, constraints)]


def test_constraints_that_can_not_be_read_are_satisfied_nowhere() -> None:
    assert passing(ConstraintFilter().prepare(group_with("rack=r7"), view := make_view([make_node("a")])), view) == []


def test_it_explains_itself_in_the_words_of_swarmkit() -> None:
    assert ConstraintFilter().explain(1) == "scheduling constraints not satisfied on 1 node"
    assert ConstraintFilter().explain(3) == "scheduling constraints not satisfied on 3 nodes"
