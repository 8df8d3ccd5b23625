"""Which executors a node gets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.errors import ConfigurationError
from swarmcore.node.executors import create
from swarmcore.plugin.executor import Dependencies, Executor, HostInfo, TemporaryError
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.clock import let_the_loop_run
from swarmcore.testing.executors import FakeExecutor


class Factory:
    """Offers an executor that exists only in memory."""

    def __init__(self, name: str, *runtimes: str, automatic: int = 0, available: bool = True) -> None:
        self.name = name
        self.runtimes = frozenset(runtimes)
        self.automatic = automatic
        self.is_available = available
        self.host: HostInfo | None = None

    async def available(self, host: HostInfo) -> bool:
        return self.is_available

    async def create(self, host: HostInfo) -> Executor:
        self.host = host
        return FakeExecutor()


class Broken(Factory):
    async def available(self, host: HostInfo) -> bool:
        raise RuntimeError("a bug")

    async def create(self, host: HostInfo) -> Executor:
        raise RuntimeError("a bug")


def plugins(*factories: Factory) -> PluginSet:
    return PluginSet(executors=MappingProxyType({factory.name: factory for factory in factories}))


async def chosen(tmp_path: Path, names: tuple[str, ...], *factories: Factory) -> set[str]:
    made = await create(plugins(*factories), names, state_dir=tmp_path, engine_addr="unix:///x")
    return set(made)


async def test_auto_takes_the_first_by_rank_that_answers(tmp_path: Path) -> None:
    podman = Factory("podman", "container", automatic=20)
    docker = Factory("docker", "container", automatic=10, available=False)
    never = Factory("process", "process")

    assert await chosen(tmp_path, ("auto",), podman, docker, never) == {"container"}
    assert podman.host is not None
    assert podman.host.engine_addr == "unix:///x"
    assert Path(podman.host.state_dir) == tmp_path / "executors" / "podman"
    assert never.host is None


async def test_auto_without_any_engine_says_so_and_runs_no_tasks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken("docker", "container", automatic=10)

    assert await chosen(tmp_path, ("auto",), broken) == set()
    assert "can't tell whether its engine is there: a bug" in caplog.text
    assert "no container engine answers (docker): this node runs no tasks" in caplog.text


async def test_a_list_gives_each_runtime_to_its_executor(tmp_path: Path) -> None:
    docker, process = Factory("docker", "container"), Factory("process", "process")

    assert await chosen(tmp_path, ("docker", "process"), docker, process) == {"container", "process"}


class Late(Factory):
    """Its engine is there from the second time on, and then until `is_available` is taken away."""

    def __init__(self, name: str, *runtimes: str) -> None:
        super().__init__(name, *runtimes, available=False)
        self.made: list[FakeExecutor] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def create(self, host: HostInfo) -> Executor:
        await self.gate.wait()
        if not self.is_available:
            raise ConfigurationError("no engine answers: start it")
        self.made.append(FakeExecutor())
        return self.made[-1]


async def two(tmp_path: Path, late: Late) -> Mapping[str, Executor]:
    both = plugins(late, Factory("process", "process"))
    return await create(both, (late.name, "process"), state_dir=tmp_path, engine_addr="")


async def test_one_of_several_that_is_not_there_is_tried_again_while_the_others_run(tmp_path: Path) -> None:
    late = Late("docker", "container")
    executors = await two(tmp_path, late)
    node, task = Node(id="n"), Task(id="t")
    await executors["container"].configure(node)

    with pytest.raises(TemporaryError, match="no engine answers: start it"):
        await executors["container"].describe()
    with pytest.raises(TemporaryError, match="no engine answers: start it"):
        await executors["container"].recover(task, None, Dependencies())
    late.is_available = True
    await executors["container"].describe()
    await executors["container"].controller(task, Dependencies())

    (made,) = late.made
    assert made.nodes == [node]
    await executors["container"].aclose()


async def test_the_attempt_outlives_who_gave_up_waiting_for_it(tmp_path: Path) -> None:
    late = Late("docker", "container")
    executors = await two(tmp_path, late)
    late.is_available = True
    late.gate.clear()
    impatient = asyncio.create_task(executors["container"].describe())
    await let_the_loop_run()
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)

    late.gate.set()
    await executors["container"].describe()

    assert len(late.made) == 1
    await executors["container"].aclose()


async def test_closing_ends_an_attempt(tmp_path: Path) -> None:
    late = Late("docker", "container")
    executors = await two(tmp_path, late)
    late.gate.clear()
    asking = asyncio.create_task(executors["container"].describe())
    await let_the_loop_run()

    await executors["container"].aclose()

    with pytest.raises(TemporaryError, match="the node ends"):
        await asking


async def test_where_none_of_several_is_there_the_node_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no engine answers: start it"):
        await chosen(tmp_path, ("docker", "other"), Late("docker", "container"), Late("other", "other"))


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (("nosuch",), r"no plugin offers 'nosuch' \(installed: broken, docker, podman\)"),
        (("docker", "podman"), "'podman' runs container tasks as another one does"),
        (("broken",), "executor 'broken' did not start: a bug"),
    ],
)
async def test_what_can_not_be_is_said_in_one_line(tmp_path: Path, names: tuple[str, ...], error: str) -> None:
    factories = (Factory("docker", "container"), Factory("podman", "container"), Broken("broken", "x"))

    with pytest.raises(ConfigurationError, match=error):
        await chosen(tmp_path, names, *factories)
