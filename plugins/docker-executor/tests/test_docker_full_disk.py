"""An engine whose disk is full: the task says so, and once there is room it runs."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from swarmcore_docker_executor.factory import DockerFactory

from conftest import require
from swarmcore.plugin.executor import ExecutorError, HostInfo
from swarmcore.testing import engines
from swarmcore.testing.executor_contract.container_tasks import IMAGE, NOTHING, make_task, output
from swarmcore.testing.registry import registry

pytestmark = pytest.mark.engine


@pytest.fixture
def small_engine() -> Iterator[engines.DockerEngine]:
    """Its folder is a memory of 48 MiB."""
    require(engines.missing_engine())
    with engines.scratch() as folder:
        data = folder / "e" / "data"
        data.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "small", str(data)], check=True, timeout=10)
        engine = engines.start_docker(folder / "e")
        try:
            engine.import_image(IMAGE)
            yield engine
        finally:
            engine.stop()


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


async def test_a_full_disk_is_said_and_room_heals_it(small_engine: engines.DockerEngine, tmp_path: Path) -> None:
    host = HostInfo(state_dir=str(tmp_path), engine_addr=small_engine.address)
    executor = await DockerFactory().create(host)
    ballast = small_engine.folder / "data" / "ballast"
    try:
        fill(ballast)
        with registry() as there:
            pulled = make_task("echo made")
            pulled.spec.container.image = there.image("app:1")
            said = []
            for task in (make_task(), pulled):
                controller = await executor.controller(task, NOTHING)
                with pytest.raises(ExecutorError) as raised:
                    await controller.prepare()
                said.append(str(raised.value))
                await controller.remove()
            ballast.unlink()
            assert await output(executor, pulled) == "made\n"
    finally:
        await executor.aclose()

    assert all("no space left on device" in each for each in said), said
    assert said[1].startswith(f"image {there.image('app:1')!r}: the node's disk is full: "), said
