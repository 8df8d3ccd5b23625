"""A service that is started by whoever connects to its socket, and ends when nobody does: Podman's usual one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import Dependencies, HostInfo
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine

IDLE_SECONDS = 1
# The service takes the descriptor that it is given only if it is addressed to its own process.
ACTIVATE = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null'


class Activator:
    """What systemd's podman.socket does."""

    def __init__(self, engine: PodmanEngine) -> None:
        self._engine = engine
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(engine.socket))
        self._socket.listen()
        self.starts = 0
        self.service: asyncio.subprocess.Process | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        loop, descriptor = asyncio.get_running_loop(), self._socket.fileno()
        command = [*self._engine.command, "system", "service", f"--time={IDLE_SECONDS}"]
        try:
            while True:
                connected = asyncio.Event()
                loop.add_reader(descriptor, connected.set)
                try:
                    await connected.wait()
                finally:
                    loop.remove_reader(descriptor)
                self.service = await asyncio.create_subprocess_exec(
                    *("sh", "-c", ACTIVATE, "sh"),
                    *command,
                    stdin=descriptor,
                    env=self._engine.environment,
                    cwd=self._engine.folder,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                self.starts += 1
                self._changed.set()
                await self.service.wait()
        finally:
            if self.service is not None and self.service.returncode is None:
                self.service.kill()
                await self.service.wait()
            self._socket.close()

    async def wait_started(self, times: int) -> asyncio.subprocess.Process:
        async with asyncio.timeout(30):
            while self.starts < times:
                self._changed.clear()
                await self._changed.wait()
        assert self.service is not None
        return self.service


@contextlib.asynccontextmanager
async def activated(engine: PodmanEngine) -> AsyncIterator[Activator]:
    """The engine, with a service that comes and goes; afterwards with the one it had."""
    await asyncio.to_thread(engine.stop)
    activator = Activator(engine)
    running = asyncio.create_task(activator.run())
    try:
        yield activator
    finally:
        running.cancel()
        await asyncio.wait([running])
        await asyncio.to_thread(engine.start)


async def test_a_service_on_demand_comes_back_for_its_containers_and_ends_when_nobody_needs_it(
    podman_engine: PodmanEngine, tmp_path: Path
) -> None:
    task = Task(id=new_id(), service_id=new_id(), slot=1)
    task.service_annotations.name = "demand"
    task.spec.container.image = "redis:3.0.5"
    async with activated(podman_engine) as activator:
        host = HostInfo(state_dir=str(tmp_path), engine_addr=podman_engine.address)
        executor = await PodmanFactory().create(host)
        controller = await executor.controller(task, Dependencies())
        await controller.prepare()
        await controller.start()
        waiting = asyncio.ensure_future(controller.wait())

        (await activator.wait_started(1)).kill()
        last = await activator.wait_started(2)
        assert not waiting.done()
        await controller.shutdown()
        await asyncio.wait_for(waiting, 10)
        await controller.remove()
        await executor.aclose()

        async with asyncio.timeout(30):
            assert await last.wait() == 0
        assert activator.starts == 2
