"""What a node says of itself."""

from __future__ import annotations

import asyncio
import logging

import pytest

from swarmcore.agent.description import Describer, merge
from swarmcore.api.types_pb2 import GenericResource, NodeDescription, NodeTLSInfo
from swarmcore.plugin import abilities
from swarmcore.plugin.executor import Executor, TemporaryError
from swarmcore.testing.executors import FakeExecutor


def docker() -> NodeDescription:
    description = NodeDescription(hostname="box")
    description.platform.os = "linux"
    description.resources.nano_cpus = 4
    description.engine.engine_version = "20.10"
    description.engine.labels["zone"] = "a"
    description.engine.plugins.add(type="Volume", name="local")
    return description


def plain() -> NodeDescription:
    description = NodeDescription(hostname="other")
    description.resources.nano_cpus = 2
    description.engine.labels["zone"] = "b"
    return description


def merged(described: dict[str, NodeDescription], hostname: str = "") -> NodeDescription:
    return merge(described, hostname=hostname, generic=(), tls_info=NodeTLSInfo())


def plugins_of(description: NodeDescription) -> list[tuple[str, str]]:
    return [(each.type, each.name) for each in description.engine.plugins]


def test_several_executors_make_one_description() -> None:
    description = merged({"container": docker(), "process": plain()})

    assert (description.hostname, description.resources.nano_cpus) == ("box", 4)
    assert description.engine.labels["zone"] == "a"
    assert plugins_of(description) == [
        ("Volume", "local"),
        ("swarmcore/executor", "container"),
        ("swarmcore/executor", "process"),
    ]


def test_abilities_are_told_for_the_runtime_that_they_are_for() -> None:
    engine, processes = docker(), plain()
    abilities.state(engine, ["secrets", "logs"])
    abilities.state(processes, [])

    description = merged({"container": engine, "process": processes, "other": plain()})

    assert ("swarmcore/abilities", "container:logs,secrets") in plugins_of(description)
    assert abilities.stated(description, "container") == frozenset({"logs", "secrets"})
    assert abilities.stated(description, "process") == frozenset()
    assert abilities.stated(description, "other") is None


def test_a_node_without_executors_is_no_stock_engine() -> None:
    description = merged({})

    assert plugins_of(description) == [("swarmcore/executor", "none")]
    assert description.hostname and description.platform.os == "linux"


def test_the_operators_words_count_more_than_the_engines() -> None:
    gpu = GenericResource()
    gpu.discrete_resource_spec.kind = "gpu"

    description = merge(
        {"container": docker()}, hostname="mine", generic=[gpu], tls_info=NodeTLSInfo(trust_root=b"root")
    )

    assert description.hostname == "mine"
    assert list(description.resources.generic) == [gpu]
    assert description.tls_info.trust_root == b"root"


async def test_an_engine_that_is_away_keeps_its_last_description(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine, processes = FakeExecutor(description=docker()), FakeExecutor(description=plain())
    executors: dict[str, Executor] = {"container": engine, "process": processes}
    returns = []
    describer = Describer(
        executors,
        hostname="",
        generic=(),
        tls_info=NodeTLSInfo,
        on_return=lambda: returns.append(True),
        seconds=0.02,
    )
    first = await describer.describe()

    engine.script.acts["describe"] = [TemporaryError("no answer"), asyncio.Event(), RuntimeError("odd"), None]
    for _ in range(3):
        assert await describer.describe() == first
    assert await describer.describe() == first

    assert returns == [True]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_an_executor_of_two_runtimes_is_asked_once() -> None:
    asked = []

    async def note() -> None:
        asked.append(True)

    executor = FakeExecutor(description=plain())
    executor.script.acts["describe"] = [note]
    describer = Describer(
        {"a": executor, "b": executor}, hostname="", generic=(), tls_info=NodeTLSInfo, on_return=lambda: None
    )

    description = await describer.describe()

    assert asked == [True]
    assert plugins_of(description) == [("swarmcore/executor", "a"), ("swarmcore/executor", "b")]
