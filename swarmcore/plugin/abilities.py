"""What an executor can do for its tasks, as a node tells it to the managers: an engine plugin of its description.

An executor states its abilities in `describe`; the agent says for which runtime. Who states none is taken to be able
to do everything, as a stock engine is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from swarmcore.api.types_pb2 import NodeDescription

PLUGIN_TYPE: Final = "swarmcore/abilities"
"""Of the engine plugin whose name is `RUNTIME:ABILITY,ABILITY…`; an executor leaves out the runtime."""

ABILITIES: Final[Mapping[str, str]] = {
    "logs": "what its tasks print can be read",
    "exec": "commands can be run beside its tasks",
    "stats": "what its tasks use is known",
    "healthcheck": "health checks",
    "secrets": "secrets as files",
    "configs": "configs as files",
    "mounts": "bind mounts, volumes and tmpfs",
    "cluster-volumes": "volumes of the cluster",
    "networks": "networks between tasks",
    "host-ports": "ports published on the node itself",
    "ingress-ports": "ports published on every node",
    "limits": "limits of CPU and memory",
    "pids-limit": "a limit of processes",
    "swap": "a limit of swap",
    "swappiness": "swappiness of memory",
    "ulimits": "ulimits",
    "sysctls": "sysctls",
    "privileges": "capabilities, and freedom from seccomp, AppArmor and SELinux",
    "seccomp": "seccomp profiles of their own",
    "selinux": "SELinux labels of their own",
    "log-drivers": "log drivers other than its own",
    "isolation": "isolation of Windows containers, and their credentials",
}
"""Names that mean something, and what. Others are shown, and asked for by nobody."""

CONTAINERS: Final = frozenset(ABILITIES) - {"cluster-volumes", "networks", "ingress-ports", "isolation"}
"""What a container engine on Linux can do for tasks that have no networks between them."""


def state(description: NodeDescription, abilities: Iterable[str]) -> None:
    """Add to an executor's description of itself what it can do. An empty list states that it can do nothing more."""
    description.engine.plugins.add(type=PLUGIN_TYPE, name=",".join(sorted(abilities)))


def stated(description: NodeDescription, runtime: str) -> frozenset[str] | None:
    """What a node says of its executor for `runtime`; None where it says nothing."""
    for plugin in description.engine.plugins:
        if plugin.type == PLUGIN_TYPE:
            name, colon, abilities = plugin.name.partition(":")
            if colon and name == runtime:
                return frozenset(filter(None, abilities.split(",")))
    return None
