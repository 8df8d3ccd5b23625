"""Placement constraints such as `node.labels.rack != r7`: parsed once, matched against nodes.

Used by the constraint filter, by the global orchestrator and the constraint enforcer, and to validate service specs.
Pure. Source: SwarmKit 7.4.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.errors import InvalidArgumentError

NODE_LABEL_PREFIX = "node.labels."
ENGINE_LABEL_PREFIX = "engine.labels."

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9\-_.]+")
_VALUE = re.compile(r"[A-Za-z0-9:\-_\t\n\f\r .*()?+\[\]\\^$|/]+")
_SPACE = " \t\n\v\f\r\x85\xa0"


@dataclass(frozen=True, slots=True)
class Constraint:
    """One `key==value` or `key!=value`."""

    key: str
    """As typed; compare without case, except for what follows a label prefix."""
    is_equal: bool
    value: str

    def matches(self, actual: str) -> bool:
        """Whether `actual` satisfies it: whole strings, case ignored, no globbing."""
        return (self.value.lower() == actual.lower()) is self.is_equal

    @property
    def node_label(self) -> str | None:
        """The node label it asks for, in its own case; None for other keys."""
        return _after(self.key, NODE_LABEL_PREFIX)

    @property
    def engine_label(self) -> str | None:
        """The engine label it asks for, in its own case; None for other keys."""
        return _after(self.key, ENGINE_LABEL_PREFIX)


def parse(expressions: Iterable[str]) -> tuple[Constraint, ...]:
    """Parse every expression; raises InvalidArgumentError for the first that is none."""
    return tuple(parse_one(expression) for expression in expressions)


def parse_one(expression: str) -> Constraint:
    """Parse one expression. `==` is looked for first; the first occurrence splits."""
    for operator in ("==", "!="):
        key, found, value = expression.partition(operator)
        if not found:
            continue
        key, value = key.strip(_SPACE), value.strip(_SPACE)
        if not _KEY.fullmatch(key):
            raise InvalidArgumentError(f"key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise InvalidArgumentError(f"value '{value}' is invalid")
        return Constraint(key, operator == "==", value)
    raise InvalidArgumentError("constraint expected one operator from ==, !=")


def node_matches(node: Node, constraints: Iterable[Constraint]) -> bool:
    """Whether `node` satisfies all of them. An unknown key is satisfied by no node."""
    return all(_matches(node, constraint) for constraint in constraints)


def _matches(node: Node, constraint: Constraint) -> bool:
    match constraint.key.lower():
        case "node.id":
            return constraint.matches(node.id)
        case "node.hostname":
            return constraint.matches(node.description.hostname)
        case "node.ip":
            return _matches_address(node.status.addr, constraint)
        case "node.role":
            return constraint.matches(NodeRole.Name(node.role))
        case "node.platform.os":
            return constraint.matches(node.description.platform.os)
        case "node.platform.arch":
            return constraint.matches(node.description.platform.architecture)
    if (label := constraint.node_label) is not None:
        return constraint.matches(node.spec.annotations.labels.get(label, ""))
    if (label := constraint.engine_label) is not None:
        return constraint.matches(node.description.engine.labels.get(label, ""))
    return False


def _matches_address(addr: str, constraint: Constraint) -> bool:
    """`node.ip` takes an address or a CIDR; what is neither matches nothing."""
    try:
        network = ipaddress.ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    try:
        is_inside = ipaddress.ip_address(addr) in network
    except ValueError:
        is_inside = False
    return is_inside is constraint.is_equal


def _after(key: str, prefix: str) -> str | None:
    if len(key) > len(prefix) and key[: len(prefix)].lower() == prefix:
        return key[len(prefix) :]
    return None
