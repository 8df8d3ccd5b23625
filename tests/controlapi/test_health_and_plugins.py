"""The two small services beside Control and Watch."""

from __future__ import annotations

import pytest

from swarmcore.api.health_pb2 import HealthCheckRequest, HealthCheckResponse
from swarmcore.api.plugins_pb2 import ListPluginsRequest, Plugin
from swarmcore.controlapi.health import HealthService
from swarmcore.controlapi.plugins import PluginsService
from swarmcore.errors import NotFoundError
from swarmcore.plugin.plugin_set import PluginReport, PluginSet, PluginState

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def status(health: HealthService, name: str) -> int:
    return (await health.Check(HealthCheckRequest(service=name), None)).status


async def test_a_manager_says_what_it_serves() -> None:
    health = HealthService()

    assert [await status(health, name) for name in ("", "Raft", "ControlAPI")] == [SERVING, NOT_SERVING, NOT_SERVING]
    health.set_serving("Raft", True)
    assert [await status(health, name) for name in ("Raft", "ControlAPI")] == [SERVING, NOT_SERVING]
    health.set_serving("Raft", False)
    assert await status(health, "Raft") == NOT_SERVING


async def test_an_unknown_service_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="service raft not found"):
        await status(HealthService(), "raft")


async def test_every_field_of_a_report_is_told() -> None:
    report = PluginReport(
        name="spread",
        state=PluginState.OK,
        distribution="swarmcore-spread",
        version="1.2.0",
        summary="spreads",
        provides=("strategy/spread",),
        order=0,
        note="note",
        error="error",
        traceback="traceback",
        load_seconds=0.5,
        hooks=("swarmcore_scheduler_strategies",),
        calls=7,
        p99_seconds=0.25,
    )
    broken = PluginReport(name="broken", state=PluginState.ERROR, error="ImportError: no")
    service = PluginsService(
        lambda: PluginSet(number=3, loaded=(report, broken)),
        "node1",
        "host1",
        on_disk=lambda: {"swarmcore-spread": "1.3.0"},
    )

    answer = await service.ListPlugins(ListPluginsRequest(), None)

    assert (answer.node_id, answer.hostname, answer.api_version, answer.set_number) == ("node1", "host1", "1.0", 3)
    assert answer.plugins[0] == Plugin(
        name="spread",
        state=Plugin.OK,
        distribution="swarmcore-spread",
        version="1.2.0",
        summary="spreads",
        provides=["strategy/spread"],
        order=0,
        note="note; 1.3.0 on disk, restart pending",
        error="error",
        traceback="traceback",
        load_seconds=0.5,
        hooks=["swarmcore_scheduler_strategies"],
        calls=7,
        p99_seconds=0.25,
    )
    assert answer.plugins[1] == Plugin(name="broken", state=Plugin.ERROR, error="ImportError: no")
    assert not answer.plugins[1].HasField("order")


def test_every_state_has_its_number() -> None:
    assert {state.name for state in PluginState} == set(Plugin.State.keys()) - {"UNKNOWN"}


async def test_what_is_installed_is_read_from_the_disk() -> None:
    answer = await PluginsService(lambda: PluginSet(), "node1", "host1").ListPlugins(ListPluginsRequest(), None)

    assert not answer.plugins
