"""The Plugins service: what `swarmctl plugins` shows of the manager that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from swarmcore.api.plugins_pb2 import ListPluginsRequest, ListPluginsResponse, Plugin
from swarmcore.api.plugins_pb2_grpc import PluginsServicer
from swarmcore.plugin import API_VERSION
from swarmcore.plugin.loader import installed_versions
from swarmcore.plugin.plugin_set import PluginReport, PluginSet, PluginState, with_disk_versions

_STATES: Mapping[PluginState, Plugin.State.ValueType] = {state: Plugin.State.Value(state.name) for state in PluginState}


class PluginsService(PluginsServicer):
    """Registered once on a manager's servers."""

    def __init__(
        self,
        plugins: Callable[[], PluginSet],
        node_id: str,
        hostname: str,
        *,
        on_disk: Callable[[], Mapping[str, str]] = installed_versions,
    ) -> None:
        """`plugins` gives the set in use; `on_disk` versions by distribution, and reads files."""
        self._plugins = plugins
        self._node_id = node_id
        self._hostname = hostname
        self._on_disk = on_disk

    async def ListPlugins(self, request: ListPluginsRequest, context: object) -> ListPluginsResponse:
        plugins = self._plugins()
        reports = with_disk_versions(plugins.reports, await asyncio.to_thread(self._on_disk))
        major, minor = API_VERSION
        return ListPluginsResponse(
            plugins=[_message(report) for report in reports],
            node_id=self._node_id,
            hostname=self._hostname,
            api_version=f"{major}.{minor}",
            set_number=plugins.number,
        )


def _message(report: PluginReport) -> Plugin:
    return Plugin(
        name=report.name,
        state=_STATES[report.state],
        distribution=report.distribution,
        version=report.version,
        summary=report.summary,
        provides=report.provides,
        order=report.order,
        note=report.note,
        error=report.error,
        traceback=report.traceback,
        load_seconds=report.load_seconds,
        hooks=report.hooks,
        calls=report.calls,
        p99_seconds=report.p99_seconds,
    )
