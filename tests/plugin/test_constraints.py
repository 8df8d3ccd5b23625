"""The constraint language."""

from __future__ import annotations

import pytest

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.errors import InvalidArgumentError
from swarmcore.plugin.constraints import node_matches, parse, parse_one


def node() -> Node:
    node = Node(id="Node1", role=NodeRole.MANAGER)
    node.description.hostname = "docker1"
    node.description.platform.os = "linux"
    node.description.platform.architecture = "x86_64"
    node.description.engine.labels["disk"] = "SSD"
    node.spec.annotations.labels["Rack"] = "r7"
    node.status.addr = "10.1.2.3"
    return node


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("node.id==node1", True),
        ("node.hostname!=docker1", False),
        ("node.role == manager", True),
        ("NODE.ROLE==worker", False),
        ("node.platform.os==Linux", True),
        ("node.platform.arch!=arm64", True),
        ("node.labels.Rack==R7", True),
        ("node.labels.rack==r7", False),
        ("node.labels.rack!=r7", True),
        ("engine.labels.disk==ssd", True),
        ("node.ip==10.1.2.3", True),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip!=10.1.0.0/16", False),
        ("node.ip==nonsense", False),
        ("node.ip!=nonsense", False),
        ("node.nosuch==x", False),
        ("node.nosuch!=x", False),
        ("node.labels.Rack==r*", False),
    ],
)
def test_a_constraint_matches_whole_strings_without_case(expression: str, matches: bool) -> None:
    assert node_matches(node(), parse([expression])) is matches


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("node.id", "constraint expected one operator from ==, !="),
        ("node.id=x", "constraint expected one operator from ==, !="),
        ("==x", "key '' is invalid"),
        ("1key==x", "key '1key' is invalid"),
        ("node.id==", "value '' is invalid"),
        ("node.id==a;b", "value 'a;b' is invalid"),
    ],
)
def test_what_is_no_constraint_is_refused_in_words(expression: str, error: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        parse_one(expression)

    assert str(raised.value) == error
