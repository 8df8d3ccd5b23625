"""Every field of a container spec on a real Podman service, and what only Podman honours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.api.types_pb2 import Mount
from swarmcore.plugin.executor import ExecOptions, ExecSource, Executor, ExecutorError, HostInfo
from swarmcore.testing.executor_contract.container_tasks import (
    ContainerEngine,
    make_task,
    output,
    started,
)
from swarmcore.testing.executor_contract.faults import ContainerFaults, refusal
from swarmcore.testing.executor_contract.fields import ContainerFields
from swarmcore.testing.executor_contract.root_fields import RootFields
from swarmcore.testing.podman_engines import REGISTRY_PORT, PodmanEngine

pytestmark = pytest.mark.engine


@pytest.fixture
def engine(podman_engine: PodmanEngine) -> ContainerEngine:
    return ContainerEngine(
        factory=PodmanFactory(),
        address=podman_engine.address,
        cli=podman_engine.podman,
        namespace=podman_engine.namespace,
        remove=("rm", "--force", "--time=0"),
        registry_port=REGISTRY_PORT,
        refuses=frozenset({"subpath", "readonlyforcerecursive", "selinux_context"}),
    )


@pytest.fixture
async def executor(engine: ContainerEngine, tmp_path: Path) -> AsyncIterator[Executor]:
    executor = await engine.factory.create(HostInfo(state_dir=str(tmp_path), engine_addr=engine.address))
    yield executor
    await executor.aclose()


class TestPodmanFields(ContainerFields):
    """On Podman."""


class TestPodmanRootFields(RootFields):
    """On Podman."""


class TestPodmanFaults(ContainerFaults):
    """On Podman."""


async def test_mounts_have_options_that_only_podman_knows(executor: Executor, tmp_path: Path) -> None:
    task = make_task("cat /proc/self/mounts")
    mounts = task.spec.container.mounts
    made = mounts.add(type=Mount.BIND, source=str(tmp_path / "made" / "new"), target="/made")
    made.bind_options.createmountpoint = True
    made.bind_options.propagation = Mount.BindOptions.RSLAVE
    mounts.add(type=Mount.TMPFS, target="/scratch").tmpfs_options.options = "noexec"
    mounts.add(type=Mount.VOLUME, target="/anonymous", readonly=True)

    said = await output(executor, task)

    points = {line.split()[1]: line.split() for line in said.splitlines() if line.count(" ") == 5}
    assert (tmp_path / "made" / "new").is_dir()
    assert "noexec" in points["/scratch"][3].split(",")
    assert points["/anonymous"][3].startswith("ro")


async def test_the_log_driver_is_the_tasks(executor: Executor, engine: ContainerEngine) -> None:
    task = make_task()
    task.log_driver.name = "json-file"
    task.log_driver.options.update({"max-size": "2m"})
    async with started(executor, task):
        log = (await engine.inspect(task))["HostConfig"]["LogConfig"]

    assert (log["Type"], log["Size"]) == ("k8s-file", "2.097MB")


async def test_a_command_runs_beside_a_task(executor: Executor) -> None:
    async with started(executor, make_task()) as controller:
        assert isinstance(controller, ExecSource)
        command = ["sh", "-c", "read x; echo got $x $A; echo bad >&2; exit 7"]
        session = await controller.exec(ExecOptions(command=command, env=["A=1"], stdin=True))
        try:
            await session.write(b"this\n")
            said = [piece async for piece in session.output()]
            code = await session.wait()
        finally:
            await session.aclose()
        missing = await controller.exec(ExecOptions(command=["nosuch"]))
        try:
            reason = b"".join([data async for _, data in missing.output()])
            missing_code = await missing.wait()
        finally:
            await missing.aclose()
        await controller.terminate()
        with pytest.raises(ExecutorError, match="running"):
            await controller.exec(ExecOptions(command=["true"]))

    assert (sorted(said), code) == ([(1, b"got this 1\n"), (2, b"bad\n")], 7)
    # Podman starts it first and says then, as a shell does, that there is no such program.
    assert (b"nosuch" in reason, missing_code) == (True, 127)


async def test_the_engine_is_described_as_a_node(executor: Executor) -> None:
    description = await executor.describe()

    plugins = {(plugin.type, plugin.name) for plugin in description.engine.plugins}
    assert description.engine.engine_version
    # The scheduler asks for a log driver by the name that the task has for it.
    assert {("Volume", "local"), ("Network", "bridge"), ("Log", "k8s-file"), ("Log", "json-file")} <= plugins


async def test_what_can_not_be_started_is_said_with_the_fields_name(executor: Executor) -> None:
    task = make_task()
    task.spec.container.dir = "/no/such/folder"

    assert await refusal(executor, task) == 'container.dir: workdir "/no/such/folder" does not exist'


async def test_a_reason_of_several_lines_is_told_in_one(executor: Executor, engine: ContainerEngine) -> None:
    task = make_task()
    mount = task.spec.container.mounts.add(type=Mount.VOLUME, source=f"v{task.id}", target="/x")
    mount.volume_options.driver_config.name = "local"
    mount.volume_options.driver_config.options.update({"type": "nosuchfs", "device": "none"})

    said = await refusal(executor, task)
    await engine.run("volume", "rm", f"v{task.id}")

    assert said.startswith(f"mounting volume v{task.id}: mount: ")


async def test_a_variable_without_a_value_is_kept_from_the_program(executor: Executor) -> None:
    task = make_task("echo ${container-unset} $A")
    task.spec.container.env.extend(["container", "A=1"])

    assert await output(executor, task) == "unset 1\n"
