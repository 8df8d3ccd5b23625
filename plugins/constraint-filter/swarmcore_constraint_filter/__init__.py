"""Keeps tasks on nodes that satisfy their constraints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.errors import InvalidArgumentError
from swarmcore.plugin import hookimpl
from swarmcore.plugin.constraints import Constraint, node_matches, parse
from swarmcore.plugin.scheduling import ClusterView, Filter, Mask, NodeView, TaskGroup

_PREFIX = "constraint-filter:"


class ConstraintFilter:
    """`node.*` and `engine.*` constraints, each a look-up of a mask by the node's value."""

    name, order, dynamic = "constraint", 300, False

    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | None:
        expressions = group.spec.placement.constraints
        if not expressions:
            return None
        try:
            constraints = parse(expressions)
        except InvalidArgumentError:
            # The control API refuses such a service. One that got here all the same runs nowhere.
            return Mask(0)
        mask: int = view.all
        for constraint in constraints:
            mask &= _mask(constraint, view)
        return Mask(mask)

    def explain(self, nodes: int) -> str:
        return f"scheduling constraints not satisfied on {nodes} node{'s' if nodes != 1 else ''}"


def _mask(constraint: Constraint, view: ClusterView) -> int:
    attribute = _attribute(constraint)
    if attribute is None:
        # Addresses are matched by network, keys that nobody knows by nothing: one answer for each node.
        key = f"{_PREFIX}{constraint.key.lower()}{'==' if constraint.is_equal else '!='}{constraint.value}"
        return view.attribute(key, partial(_satisfies, constraint)).get("yes", 0)
    key, function = attribute
    equal = view.attribute(_PREFIX + key, function).get(constraint.value.lower(), 0)
    return equal if constraint.is_equal else view.all & ~equal


def _satisfies(constraint: Constraint, node: NodeView) -> str:
    return "yes" if node_matches(node.node, (constraint,)) else "no"


def _attribute(constraint: Constraint) -> tuple[str, Callable[[NodeView], str]] | None:
    """What the constraint compares, in lower case, and a name for it."""
    key = constraint.key.lower()
    if key in _ATTRIBUTES:
        return key, _ATTRIBUTES[key]
    if (label := constraint.node_label) is not None:
        return f"node.labels.{label}", partial(_node_label, label)
    if (label := constraint.engine_label) is not None:
        return f"engine.labels.{label}", partial(_engine_label, label)
    return None


_ATTRIBUTES: dict[str, Callable[[NodeView], str]] = {
    "node.id": lambda node: node.id.lower(),
    "node.hostname": lambda node: node.node.description.hostname.lower(),
    "node.role": lambda node: NodeRole.Name(node.node.role).lower(),
    "node.platform.os": lambda node: node.node.description.platform.os.lower(),
    "node.platform.arch": lambda node: node.node.description.platform.architecture.lower(),
}


def _node_label(label: str, node: NodeView) -> str:
    return node.node.spec.annotations.labels.get(label, "").lower()


def _engine_label(label: str, node: NodeView) -> str:
    return node.node.description.engine.labels.get(label, "").lower()


@hookimpl
def swarmcore_scheduler_filters() -> Sequence[Filter]:
    return [ConstraintFilter()]
