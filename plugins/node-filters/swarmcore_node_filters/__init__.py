"""Abilities of executors, resources, platform, host ports, engine plugins and replicas per node."""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.plugin import hookimpl
from swarmcore.plugin.scheduling import Filter
from swarmcore_node_filters.abilities import AbilityFilter
from swarmcore_node_filters.engine_plugins import PluginFilter
from swarmcore_node_filters.host_ports import HostPortFilter
from swarmcore_node_filters.max_replicas import MaxReplicasFilter
from swarmcore_node_filters.platforms import PlatformFilter
from swarmcore_node_filters.resources import ResourceFilter


@hookimpl
def swarmcore_scheduler_filters() -> Sequence[Filter]:
    return [
        AbilityFilter(),
        ResourceFilter(),
        PluginFilter(),
        PlatformFilter(),
        HostPortFilter(),
        MaxReplicasFilter(),
    ]
