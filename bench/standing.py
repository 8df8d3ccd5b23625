"""What a group of managers stands: a restart with many tasks, no quorum, and a machine that has no time for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from bench.groups import CallRefused, OwnGroup, own_group
from bench.managers import HOST
from bench.workers import Fleet, Target
from swarmcore.api.control_pb2 import CreateConfigRequest, CreateServiceRequest, ListConfigsRequest
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.specs_pb2 import ServiceSpec
from swarmcore.testing.cluster import Swarmd
from swarmcore.testing.ports import free_port

RESTART_SECONDS = 180.0
CREATE_SECONDS = 300.0
WRITERS = READERS = 20
READ_PAUSE_SECONDS = 0.02
NO_QUORUM_WARM_UP_SECONDS = 5.0
MINUTES = 10
LOOK_SECONDS = 0.02


async def restart(folder: Path) -> float:
    """Seconds from the start of `swarmd` on a state that is there until a write over its control socket is agreed."""
    daemon = Swarmd(folder, ("--listen-remote-api", f"{HOST}:{free_port()}", "--executor", "process"))
    options = [("grpc.max_reconnect_backoff_ms", 50), ("grpc.initial_reconnect_backoff_ms", 20)]
    async with grpc.aio.insecure_channel(f"unix:{daemon.socket}", options=options) as channel:
        control = ControlStub(channel)
        request = CreateConfigRequest()
        request.spec.annotations.name = f"restart-{time.time_ns()}"
        request.spec.data = b"x"
        start = time.monotonic()
        daemon.start()
        try:
            while True:
                try:
                    await control.CreateConfig(request, timeout=RESTART_SECONDS)
                    return time.monotonic() - start
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                if not daemon.is_running or time.monotonic() - start > RESTART_SECONDS:
                    raise RuntimeError(f"swarmd does not serve; its log ends with: {daemon.log[-500:]}")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            if daemon.is_running:
                await asyncio.to_thread(daemon.kill)


@dataclass(frozen=True, slots=True)
class NoQuorum:
    """A manager whose two others are gone, while clients go on."""

    seconds: float
    grown_mb: float
    """Resident memory, from the moment before the others went."""
    slope: float
    """MB a second, over the second half."""
    refused: int
    reads: int

    @property
    def in_ten_minutes(self) -> float:
        """What was measured, and as much again for the time that was not, at the pace of the second half."""
        return self.grown_mb + max(0.0, self.slope) * max(0.0, 60 * MINUTES - self.seconds)


async def no_quorum(folder: Path, seconds: float) -> NoQuorum:
    async with own_group(folder) as group:
        leader = await group.leader()
        counts = {"refused": 0, "reads": 0}
        clients = [asyncio.create_task(_write_on(group, leader, number, counts)) for number in range(WRITERS)]
        clients += [asyncio.create_task(_read_on(group, leader, counts)) for _ in range(READERS)]
        try:
            # Clients that are served first: what serving takes is no growth for want of a quorum.
            await asyncio.sleep(NO_QUORUM_WARM_UP_SECONDS)
            for number, daemon in group.daemons.items():
                if number != leader:
                    await asyncio.to_thread(daemon.kill)
            counts.update(refused=0, reads=0)
            process = group.process(leader)
            samples: list[tuple[float, float]] = []
            start = time.monotonic()
            while (now := time.monotonic() - start) < seconds:
                samples.append((now, process.memory_info().rss / 1e6))
                await asyncio.sleep(0.5)
            grown = max(mb for _, mb in samples[-10:]) - samples[0][1]
            return NoQuorum(now, grown, _slope(samples[len(samples) // 2 :]), counts["refused"], counts["reads"])
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


async def _write_on(group: OwnGroup, via: int, writer: int, counts: dict[str, int]) -> None:
    number = 0
    while True:
        number += 1
        try:
            await group.write(via, f"writer{writer}-{number}")
            # Served: there is a quorum still, and no need for thousands of configs.
            await asyncio.sleep(READ_PAUSE_SECONDS)
        except CallRefused:
            counts["refused"] += 1
            await asyncio.sleep(READ_PAUSE_SECONDS)


async def _read_on(group: OwnGroup, via: int, counts: dict[str, int]) -> None:
    request = ListConfigsRequest(filters=ListConfigsRequest.Filters(name_prefixes=["writer1-1"]))
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await group.controls[via].ListConfigs(request, timeout=10)
            counts["reads"] += 1
        await asyncio.sleep(READ_PAUSE_SECONDS)


def _slope(samples: Sequence[tuple[float, float]]) -> float:
    """Least squares."""
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    square = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / square if square else 0.0


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Every core has another process that never waits."""
    burning: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(os.cpu_count() or 1):
            burning.append(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


async def elections_on_busy_machine(group: OwnGroup, seconds: float) -> int:
    """How often leadership changed hands meanwhile."""
    await group.leader()
    before = group.elections
    with busy_machine():
        await asyncio.sleep(seconds)
    return group.elections - before


async def elections_in_create(group: OwnGroup, tasks: int, workers: int) -> int:
    """How often leadership changed hands while a service of so many tasks came up on simulated workers."""
    async with _fleet(group, workers) as fleet:
        before = group.elections
        spec = ServiceSpec()
        spec.annotations.name = "elections"
        spec.task.container.image = "busybox:bench"
        spec.replicated.replicas = tasks
        leader = await group.leader()
        await group.controls[leader].CreateService(CreateServiceRequest(spec=spec), timeout=60)
        async with asyncio.timeout(CREATE_SECONDS):
            await fleet.counts.wait_running(tasks)
        return group.elections - before


@contextlib.asynccontextmanager
async def _fleet(group: OwnGroup, workers: int) -> AsyncIterator[Fleet]:
    leader = await group.leader()
    fleet = Fleet()
    try:
        await fleet.join(Target(HOST, group.port(leader), group.worker_token), workers)
        yield fleet
    finally:
        fleet.close()
