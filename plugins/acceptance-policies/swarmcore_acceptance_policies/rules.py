"""How a policy's configuration is read: words between commas, each a role or something of the policy's own."""

from __future__ import annotations

from collections.abc import Iterable

from swarmcore.api.types_pb2 import NodeRole

ROLES = {"worker": NodeRole.WORKER, "manager": NodeRole.MANAGER}


def split(config: str) -> tuple[frozenset[NodeRole.ValueType], list[str]]:
    """The roles that `config` names, and its other words."""
    words = [word for word in (part.strip() for part in config.split(",")) if word]
    return frozenset(ROLES[word] for word in words if word in ROLES), [word for word in words if word not in ROLES]


def choose(granted: Iterable[NodeRole.ValueType], requested: NodeRole.ValueType | None) -> NodeRole.ValueType:
    """The role to give: the requested one where it is granted, else the lesser one that is."""
    roles = frozenset(granted)
    if requested is not None and requested in roles:
        return requested
    return NodeRole.WORKER if NodeRole.WORKER in roles else NodeRole.MANAGER
