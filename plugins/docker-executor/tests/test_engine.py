"""The executor on a real engine: what a task becomes there, and what comes back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_docker_executor.engine import Engine
from swarmcore_docker_executor.factory import DockerFactory

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.errors import ConfigurationError
from swarmcore.plugin.engine_calls import THREADS, EngineError
from swarmcore.plugin.executor import (
    ContainerStatuser,
    Controller,
    Dependencies,
    Executor,
    ExitError,
    HostInfo,
    TaskPreparedError,
    TaskRejectedError,
    TaskStartedError,
    TemporaryError,
)
from swarmcore.testing.engines import DockerEngine

pytestmark = pytest.mark.engine

IMAGE = "redis:3.0.5"
NOTHING = Dependencies()


@pytest.fixture
async def executor(docker_engine: DockerEngine, tmp_path: Path) -> AsyncIterator[Executor]:
    executor = await DockerFactory().create(HostInfo(state_dir=str(tmp_path), engine_addr=docker_engine.address))
    yield executor
    await executor.aclose()


def make_task(*args: str, service: str = "redis", command: tuple[str, ...] = ()) -> Task:
    task = Task(id=new_id(), service_id=new_id(), slot=1, node_id=new_id())
    task.service_annotations.name = service
    task.spec.container.image = IMAGE
    task.spec.container.command.extend(command)
    task.spec.container.args.extend(args)
    task.spec.container.stop_grace_period.seconds = 2
    return task


async def started(executor: Executor, task: Task, dependencies: Dependencies = NOTHING) -> Controller:
    controller = await executor.controller(task, dependencies)
    await controller.prepare()
    await controller.start()
    return controller


def inspect(engine: DockerEngine, task: Task) -> dict[str, object]:
    name = f"{task.service_annotations.name}.{task.slot}.{task.id}"
    found: dict[str, object] = json.loads(engine.docker("inspect", name))[0]
    return found


async def test_preparing_and_starting_twice_says_that_it_was_done(executor: Executor) -> None:
    task = make_task("sleep", "100")
    controller = await executor.controller(task, NOTHING)
    try:
        await controller.prepare()
        with pytest.raises(TaskPreparedError):
            await controller.prepare()
        await controller.start()
        with pytest.raises(TaskStartedError):
            await controller.start()
    finally:
        await controller.remove()


@pytest.mark.parametrize(("command", "code"), [(("true",), 0), (("sh", "-c", "exit 3"), 3)])
async def test_wait_tells_the_exit_code(executor: Executor, command: tuple[str, ...], code: int) -> None:
    controller = await started(executor, make_task(command=command))
    try:
        if code:
            with pytest.raises(ExitError, match=rf"^task: non-zero exit \({code}\)") as raised:
                await controller.wait()
            assert raised.value.code == code
        else:
            await controller.wait()
    finally:
        await controller.remove()


async def test_shutdown_signals_first_and_kills_after_the_grace_period(
    executor: Executor, docker_engine: DockerEngine
) -> None:
    task = make_task(command=("sh", "-c", "trap 'exit 7' TERM; while true; do sleep 0.1; done"))
    polite = await started(executor, task)
    # The shell must have set its trap before the signal comes.
    await asyncio.to_thread(docker_engine.docker, "exec", f"redis.1.{task.id}", "true")
    stubborn_task = make_task(command=("sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"))
    stubborn_task.spec.container.stop_grace_period.seconds = 1
    stubborn = await started(executor, stubborn_task)
    await asyncio.to_thread(docker_engine.docker, "exec", f"redis.1.{stubborn_task.id}", "true")

    await asyncio.gather(polite.shutdown(), stubborn.shutdown())
    codes = [inspect(docker_engine, each)["State"]["ExitCode"] for each in (task, stubborn_task)]  # type: ignore[index]
    await asyncio.gather(polite.shutdown(), stubborn.terminate())
    await asyncio.gather(polite.remove(), stubborn.remove())
    await asyncio.gather(polite.remove(), stubborn.remove())

    assert codes == [7, 137]


async def test_a_running_container_is_found_again_by_another_executor(
    executor: Executor, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    task = make_task("sleep", "100")
    controller = await started(executor, task)
    before = inspect(docker_engine, task)["State"]
    again = await DockerFactory().create(HostInfo(state_dir=str(tmp_path), engine_addr=docker_engine.address))
    try:
        found = await again.recover(task, controller.handle, NOTHING)
        lost = await again.recover(make_task(), None, NOTHING)

        assert found is not None
        assert lost is None
        assert inspect(docker_engine, task)["State"] == before
        assert isinstance(found, ContainerStatuser)
        status = await found.container_status()
        assert status is not None
        assert status.pid > 0
    finally:
        await controller.remove()
        await again.aclose()


async def test_a_health_check_gates_the_start(executor: Executor) -> None:
    task = make_task(command=("sh", "-c", "sleep 0.5; touch /ok; sleep 100"))
    health = task.spec.container.healthcheck
    health.test.extend(["CMD", "test", "-e", "/ok"])
    health.interval.nanos, health.retries = 200_000_000, 20
    controller = await started(executor, task)
    sick_task = make_task("sleep", "100")
    sick = sick_task.spec.container.healthcheck
    sick.test.extend(["CMD", "false"])
    sick.interval.nanos, sick.retries = 200_000_000, 1
    unhealthy = await executor.controller(sick_task, NOTHING)
    await unhealthy.prepare()

    with pytest.raises(ExitError, match="unhealthy container"):
        await unhealthy.start()
    await asyncio.gather(controller.remove(), unhealthy.remove())


async def test_the_engine_is_described_as_a_node(executor: Executor) -> None:
    description = await executor.describe()

    assert description.platform.os == "linux"
    assert description.resources.memory_bytes > 0
    assert description.engine.engine_version
    assert ("Network", "overlay") in {(plugin.type, plugin.name) for plugin in description.engine.plugins}


async def test_an_engine_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    host = HostInfo(state_dir=str(tmp_path), engine_addr=f"unix://{tmp_path}/nosuch.sock")

    assert not await DockerFactory().available(host)
    with pytest.raises(ConfigurationError, match=r"no Docker engine answers at .*start it or change --engine-addr"):
        await DockerFactory().create(host)


async def test_calls_about_many_containers_need_one_connection_a_thread(docker_engine: DockerEngine) -> None:
    engine = await Engine.connect(docker_engine.address)
    before = len(os.listdir("/proc/self/fd"))

    for number in range(60):
        with pytest.raises(EngineError):
            await engine.call("GET", f"/containers/nosuch{number}/json")

    assert len(os.listdir("/proc/self/fd")) <= before + THREADS
    await engine.aclose()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_an_image_that_was_removed_since_it_was_looked_for_is_looked_for_again(
    executor: Executor, docker_engine: DockerEngine
) -> None:
    await asyncio.to_thread(docker_engine.import_image, "127.0.0.1:1/fleeting:1")
    first, second = make_task("sleep", "100"), make_task("sleep", "100")
    first.spec.container.image = second.spec.container.image = "127.0.0.1:1/fleeting:1"
    controllers = [await executor.controller(task, NOTHING) for task in (first, second)]
    # The first asks the registry in vain; from the second look on, the image is believed to be here.
    await controllers[0].prepare()
    await controllers[0].remove()
    await controllers[0].prepare()
    await controllers[0].remove()
    await asyncio.to_thread(docker_engine.docker, "rmi", "127.0.0.1:1/fleeting:1")

    with pytest.raises(TemporaryError, match="No such image"):
        await controllers[1].prepare()
    with pytest.raises(TaskRejectedError):
        await controllers[1].prepare()
