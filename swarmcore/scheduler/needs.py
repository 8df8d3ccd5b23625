"""Which filter a task can't do without: asked for by its spec, so that a missing plugin holds it instead of
letting it through unchecked. The one table of the core that knows filters by name.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import Mount
from swarmcore.scheduler.footprint import footprint_of


class Need(NamedTuple):
    """One filter, and whether a task needs it. Says the same as the filter's own `prepare`."""

    filter: str
    applies: Callable[[Task], bool]


def _reserves(task: Task) -> bool:
    footprint = footprint_of(task)
    return bool(footprint.nano_cpus or footprint.memory_bytes or footprint.generic)


def _uses_engine_plugins(task: Task) -> bool:
    if task.spec.log_driver.name not in ("", "none"):
        return True
    if any(attachment.network.driver_state.name for attachment in task.networks):
        return True
    return any(
        mount.type == Mount.VOLUME and mount.volume_options.driver_config.name not in ("", "local")
        for mount in task.spec.container.mounts
    )


NEEDS: tuple[Need, ...] = (
    Need("resource", _reserves),
    Need("plugin", _uses_engine_plugins),
    Need("constraint", lambda task: bool(task.spec.placement.constraints)),
    Need("platform", lambda task: bool(task.spec.placement.platforms)),
    Need("host-port", lambda task: bool(footprint_of(task).ports)),
    Need("max-replicas", lambda task: task.spec.placement.max_replicas > 0),
    Need("volume", lambda task: any(mount.type == Mount.CLUSTER for mount in task.spec.container.mounts)),
)


def missing_filters(task: Task, available: Container[str]) -> list[str]:
    """Names of filters that `task` needs and that are not available, in the order of the table."""
    return [need.filter for need in NEEDS if need.filter not in available and need.applies(task)]
