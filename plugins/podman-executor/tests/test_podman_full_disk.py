"""A Podman engine whose disk is full: the task says so, and once there is room it runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from conftest import require
from swarmcore.plugin.executor import ExecutorError, HostInfo
from swarmcore.testing.engines import namespace_of, scratch
from swarmcore.testing.executor_contract.container_tasks import IMAGE, NOTHING, make_task, output
from swarmcore.testing.podman_engines import REGISTRY_PORT, PodmanEngine, missing_podman
from swarmcore.testing.registry import registry

pytestmark = pytest.mark.engine


@pytest.fixture
def small_engine() -> Iterator[PodmanEngine]:
    """Its folder is a memory of 48 MiB."""
    require(missing_podman())
    with scratch() as folder, contextlib.ExitStack() as stack:
        name = f"swf{os.getpid() % 10_000}"
        namespace_of(stack, name)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, timeout=20)
        (folder / "data").mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "small", str(folder / "data")], check=True, timeout=10
        )
        engine = PodmanEngine(folder, name)
        engine.start()
        try:
            engine.import_image(IMAGE)
            yield engine
        finally:
            engine.stop()


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


async def test_a_full_disk_is_said_and_room_heals_it(small_engine: PodmanEngine, tmp_path: Path) -> None:
    executor = await PodmanFactory().create(HostInfo(state_dir=str(tmp_path), engine_addr=small_engine.address))
    ballast = small_engine.folder / "data" / "ballast"
    try:
        fill(ballast)
        with registry(namespace=small_engine.namespace, port=REGISTRY_PORT) as there:
            pulled = make_task("echo made")
            pulled.spec.container.image = there.image("app:1")
            said = []
            for task in (make_task(), pulled):
                controller = await executor.controller(task, NOTHING)
                with pytest.raises(ExecutorError) as raised:
                    await controller.prepare()
                said.append(str(raised.value))
                ballast.unlink()
                await controller.remove()
                fill(ballast)
            ballast.unlink()
            assert await output(executor, pulled) == "made\n"
    finally:
        await executor.aclose()

    assert all("no space left on device" in each or "disk is full" in each for each in said), said
