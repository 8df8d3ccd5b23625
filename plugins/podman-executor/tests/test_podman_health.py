"""Health checks that this side drives: hanging ones, the image's own, and those of containers found again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import Dependencies, Executor, ExitError, HostInfo
from swarmcore.testing.engines import busybox_image
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine

NOTHING = Dependencies()
RUN = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")


@contextlib.asynccontextmanager
async def executor_on(engine: PodmanEngine, folder: Path) -> AsyncIterator[Executor]:
    executor = await PodmanFactory().create(HostInfo(state_dir=str(folder), engine_addr=engine.address))
    try:
        yield executor
    finally:
        await executor.aclose()


def make_task(*test: str, interval: float = 0.3, image: str = "redis:3.0.5") -> Task:
    task = Task(id=new_id(), service_id=new_id(), slot=1)
    task.service_annotations.name = "health"
    task.spec.container.image = image
    task.spec.container.command.extend(RUN)
    task.spec.container.stop_grace_period.seconds = 5
    if test:
        health = task.spec.container.healthcheck
        health.test.extend(test)
        health.interval.FromNanoseconds(int(interval * 1e9))
        health.retries = 1
    return task


async def test_a_check_that_hangs_is_a_failed_one(podman_engine: PodmanEngine, tmp_path: Path) -> None:
    task = make_task("CMD", "sleep", "1000")
    task.spec.container.healthcheck.timeout.FromMilliseconds(300)
    async with executor_on(podman_engine, tmp_path) as executor:
        controller = await executor.controller(task, NOTHING)
        try:
            await controller.prepare()
            with pytest.raises(ExitError, match="unhealthy"):
                await asyncio.wait_for(controller.start(), 20)
        finally:
            await controller.remove()


async def test_failures_of_the_start_period_do_not_count_and_checks_come_faster(
    podman_engine: PodmanEngine, tmp_path: Path
) -> None:
    task = make_task("CMD", "test", "-e", "/ok", interval=1000)
    task.spec.container.command[2] = f"sleep 1; : >/ok; {RUN[2]}"
    task.spec.container.healthcheck.start_period.FromSeconds(60)
    task.spec.container.healthcheck.start_interval.FromMilliseconds(200)
    async with executor_on(podman_engine, tmp_path) as executor:
        controller = await executor.controller(task, NOTHING)
        try:
            await controller.prepare()
            await asyncio.wait_for(controller.start(), 20)
        finally:
            await controller.remove()


async def test_the_images_own_check_is_run(podman_engine: PodmanEngine, tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (build / "root.tar").write_bytes(busybox_image())
    (build / "Containerfile").write_text(
        "FROM docker.io/library/redis:3.0.5\nHEALTHCHECK --interval=300ms --retries=1 CMD false\n"
    )
    arguments = ("build", "--format", "docker", "-t", "localhost/sick:1", "--isolation", "chroot", str(build))
    await asyncio.to_thread(podman_engine.podman, *arguments)
    sick, off = make_task(image="localhost/sick:1"), make_task("NONE", image="localhost/sick:1")
    async with executor_on(podman_engine, tmp_path) as executor:
        controllers = [await executor.controller(task, NOTHING) for task in (sick, off)]
        try:
            for controller in controllers:
                await controller.prepare()
            with pytest.raises(ExitError, match="unhealthy"):
                await asyncio.wait_for(controllers[0].start(), 20)
            await asyncio.wait_for(controllers[1].start(), 20)
        finally:
            for controller in controllers:
                await controller.remove()


async def test_a_container_that_was_found_again_is_checked_on(podman_engine: PodmanEngine, tmp_path: Path) -> None:
    task = make_task("CMD", "test", "!", "-e", "/sick")
    async with executor_on(podman_engine, tmp_path) as executor:
        controller = await executor.controller(task, NOTHING)
        await controller.prepare()
        await asyncio.wait_for(controller.start(), 20)
        handle = controller.handle
    name = f"health.1.{task.id}"
    await asyncio.to_thread(podman_engine.podman, "exec", name, "touch", "/sick")

    async with executor_on(podman_engine, tmp_path) as executor:
        found = await executor.recover(task, handle, NOTHING)
        assert found is not None
        try:
            with pytest.raises(ExitError, match="unhealthy"):
                await asyncio.wait_for(found.wait(), 20)
            state = json.loads(await asyncio.to_thread(podman_engine.podman, "inspect", name))[0]["State"]
        finally:
            await found.remove()

    assert not state["Running"]
