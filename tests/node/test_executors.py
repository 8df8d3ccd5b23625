"""Which executors a node gets."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest

from swarmcore.errors import ConfigurationError
from swarmcore.node.executors import create
from swarmcore.plugin.executor import Executor, HostInfo
from swarmcore.plugin.plugin_set import PluginSet
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
