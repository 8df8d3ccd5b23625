"""The race against Docker's own swarm mode, on this machine, in one run: `python -m bench.race`, or `make bench`.

The same simulated workers join both managers over the wire (`workers.py`); the same service is created over each
manager's own API; the clock stops when the manager itself counts every task as RUNNING. What counts is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

from rich.console import Console

from bench import grpc_connection, h2, logs
from bench.managers import IMAGE, Manager, docker_manager, own_manager
from bench.report import Measured, print_report
from bench.workers import Connect, Fleet
from swarmcore.testing.engines import DockerEngine, docker_engine, missing_engine

SIZES = ((2_000, 100), (10_000, 200), (20_000, 1_000))
QUICK_SIZES = ((200, 10), (2_000, 100))
POLL_SECONDS = 0.02
RACE_SECONDS = 600.0
SETTLE_SECONDS = 3.0
ENGINE_REPLICAS = 20
ENGINE_ROUNDS = 7
ENGINE_POLL_SECONDS = 0.05
REMOVE_SECONDS = 60.0

T = TypeVar("T")
Side = Callable[[bool], AbstractAsyncContextManager[Manager]]


@asynccontextmanager
async def docker_side(runs_tasks: bool) -> AsyncIterator[Manager]:
    async with docker_manager(runs_tasks=runs_tasks) as manager:
        yield manager


@asynccontextmanager
async def own_side(runs_tasks: bool) -> AsyncIterator[Manager]:
    """swarmd on a fresh folder; where it runs tasks, with a fresh engine of the same kind as Docker's side has."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if not runs_tasks:
            async with own_manager(Path(folder), flags=("--executor", "process")) as manager:
                yield manager
            return
        with docker_engine(images=(IMAGE,)) as engine:
            flags = ("--executor", "docker", "--engine-addr", engine.address)
            async with own_manager(Path(folder), runs_tasks=True, flags=flags) as manager:
                manager.engine = engine
                yield manager


SIDES: dict[str, Side] = {"docker": docker_side, "ours": own_side}


CONNECTS: dict[str, Connect] = {"lean": h2.connect, "grpc": grpc_connection.connect}


def cpu_seconds(manager: Manager) -> float:
    """CPU time of the manager's process so far, user and system."""
    times = manager.process.cpu_times()
    return float(times.user + times.system)


def memory_mb(manager: Manager) -> float:
    return float(manager.process.memory_info().rss) / 1e6


async def until_running(manager: Manager, service_id: str, replicas: int, poll: float = POLL_SECONDS) -> None:
    """Return when the manager counts all of them as RUNNING; TimeoutError after ten minutes."""
    deadline = time.monotonic() + RACE_SECONDS
    while (running := await manager.running(service_id)) < replicas:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{running} of {replicas} run after {RACE_SECONDS:.0f} s")
        await asyncio.sleep(poll)


@dataclass(frozen=True, slots=True)
class Race:
    """One service of many replicas, from its creation to the last RUNNING."""

    seconds: float
    manager_cpu: float
    manager_mb: float
    workers_cpu: float
    reports: int


async def race(side: Side, tasks: int, nodes: int, connect: Connect) -> Race:
    async with side(False) as manager:
        fleet = Fleet(connect)
        try:
            await fleet.join(manager.target, nodes)
            await asyncio.sleep(SETTLE_SECONDS)
            cpu, own_cpu, start = cpu_seconds(manager), time.process_time(), time.monotonic()
            service = await manager.create_service("race", tasks)
            async with asyncio.timeout(RACE_SECONDS):
                await fleet.counts.wait_running(tasks)
            await until_running(manager, service, tasks)
            seconds = time.monotonic() - start
            if fleet.counts.errors:
                raise RuntimeError(f"{len(fleet.counts.errors)} calls failed, the first: {fleet.counts.errors[0]}")
            return Race(
                seconds=seconds,
                manager_cpu=cpu_seconds(manager) - cpu,
                manager_mb=memory_mb(manager),
                workers_cpu=time.process_time() - own_cpu,
                reports=fleet.counts.calls,
            )
        finally:
            fleet.close()


async def latency(side: Side, services: int) -> float:
    """Median seconds from the creation of a service of one task to RUNNING, on a cluster that does nothing else."""
    async with side(False) as manager:
        fleet = Fleet()
        try:
            await fleet.join(manager.target, 5)
            taken = []
            for number in range(services):
                await asyncio.sleep(0.5)
                before, start = fleet.counts.running, time.monotonic()
                service = await manager.create_service(f"single-{number}", 1)
                async with asyncio.timeout(RACE_SECONDS):
                    await fleet.counts.wait_running(before + 1)
                await until_running(manager, service, 1, poll=0.001)
                taken.append(time.monotonic() - start)
            return median(taken)
        finally:
            fleet.close()


@dataclass(frozen=True, slots=True)
class Idle:
    """A manager with nothing to do."""

    cpu_percent: float
    mb: float


async def idle(side: Side, seconds: float) -> Idle:
    async with side(False) as manager:
        await asyncio.sleep(SETTLE_SECONDS)
        cpu, start = cpu_seconds(manager), time.monotonic()
        await asyncio.sleep(seconds)
        spent = cpu_seconds(manager) - cpu
        return Idle(100 * spent / (time.monotonic() - start), memory_mb(manager))


async def containers(sides: Sequence[str], rounds: int) -> dict[str, float]:
    """Median seconds until real containers run on a real engine. Each side has an engine of its own, and they take
    turns: a single round says little, since what engine and kernel need for the same varies by a tenth.
    """
    async with AsyncExitStack() as stack:
        managers = {name: await stack.enter_async_context(SIDES[name](True)) for name in sides}
        await asyncio.sleep(SETTLE_SECONDS)
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name in sides if number % 2 == 0 else reversed(sides):
                taken[name].append(await _containers_once(managers[name], f"containers-{number}"))
        return {name: median(seconds) for name, seconds in taken.items()}


async def _containers_once(manager: Manager, name: str) -> float:
    start = time.monotonic()
    service = await manager.create_service(name, ENGINE_REPLICAS)
    # Asking takes processor time from those who are measured.
    await until_running(manager, service, ENGINE_REPLICAS, poll=ENGINE_POLL_SECONDS)
    seconds = time.monotonic() - start
    engine = _engine_of(manager)
    there = len(await asyncio.to_thread(engine.containers))
    if there != ENGINE_REPLICAS:
        raise RuntimeError(f"the manager counts {ENGINE_REPLICAS} containers, and the engine shows {there}")
    await manager.remove_service(service)
    async with asyncio.timeout(REMOVE_SECONDS):
        while True:
            if not await asyncio.to_thread(engine.containers):
                break
            await asyncio.sleep(0.2)
    # Networks and mounts of what has ended are still being taken down.
    await asyncio.sleep(1.0)
    return seconds


def _engine_of(manager: Manager) -> DockerEngine:
    assert manager.engine is not None
    return manager.engine


@dataclass(slots=True)
class Runner:
    """Runs measurements one after another; one that fails is reported and does not end the others."""

    sides: Sequence[str]
    console: Console
    failures: list[str] = field(default_factory=list)

    async def each(self, what: str, measure: Callable[[Side], Coroutine[None, None, T]]) -> dict[str, T]:
        """Measure on each side."""
        results: dict[str, T] = {}
        for name in self.sides:
            self.console.print(f"[dim]{what}: {name} …[/dim]")
            try:
                results[name] = await measure(SIDES[name])
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs in the report
                self.failures.append(f"{what}, {name}: {_first_line(error)}")
        return results


def _first_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more is known'}"


async def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, print the report, return the exit code."""
    sides = [options.only] if options.only else ["docker", "ours"]
    runner = Runner(sides, console)
    measured = Measured(sides)
    wanted = set(options.parts)
    if "race" in wanted:
        for tasks, nodes in options.sizes:
            what = f"{tasks} tasks on {nodes} workers"
            results = await runner.each(
                what, partial(race, tasks=tasks, nodes=nodes, connect=CONNECTS[options.workers])
            )
            measured.races[tasks, nodes] = {
                name: [result.seconds, result.manager_cpu, result.manager_mb, result.workers_cpu]
                for name, result in results.items()
            }
    if "latency" in wanted:
        count = 5 if options.quick else 25
        measured.latency = await runner.each("one task, idle cluster", lambda side: latency(side, count))
    if "idle" in wanted:
        seconds = 5.0 if options.quick else 20.0
        idles = await runner.each("idle manager", lambda side: idle(side, seconds))
        measured.idle = {name: (result.cpu_percent, result.mb) for name, result in idles.items()}
    if "engine" in wanted:
        rounds = 1 if options.quick else ENGINE_ROUNDS
        console.print(f"[dim]{ENGINE_REPLICAS} containers on one engine, {rounds} rounds: {', '.join(sides)} …[/dim]")
        try:
            measured.containers = await containers(sides, rounds)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs in the report
            runner.failures.append(f"{ENGINE_REPLICAS} containers on one engine: {_first_line(error)}")
    if "logs" in wanted and "ours" in sides:
        console.print("[dim]service logs -f of 100 process tasks: ours …[/dim]")
        try:
            measured.followed = await asyncio.to_thread(logs.follow, 10.0 if options.quick else 30.0)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs in the report
            runner.failures.append(f"service logs -f, ours: {_first_line(error)}")
    print_report(console, measured)
    for failure in runner.failures:
        console.print(f"[red]failed[/red]  {failure}")
    return 1 if runner.failures else 0


def _size(text: str) -> tuple[int, int]:
    tasks, _, nodes = text.partition("/")
    try:
        size = int(tasks), int(nodes)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not TASKS/WORKERS, like 2000/100") from None
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: both must be at least 1")
    return size


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.race", description="The race against Docker's swarm mode.")
    parser.add_argument("--sizes", nargs="+", type=_size, metavar="TASKS/WORKERS", help="such as 2000/100 20000/1000")
    parser.add_argument("--only", choices=["ours", "docker"], help="one side alone")
    parser.add_argument(
        "--workers",
        choices=list(CONNECTS),
        default="lean",
        help="what the workers speak with: lean costs next to nothing; grpc (grpcio) takes CPU time from the manager",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, a minute in all")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["race", "latency", "idle", "engine", "logs"],
        default=["race", "latency", "idle", "engine", "logs"],
    )
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or (QUICK_SIZES if options.quick else SIZES)
    return options


def main() -> None:
    options = parse(sys.argv[1:])
    console = Console(width=None if sys.stdout.isatty() else 120)
    missing = missing_engine()
    if missing is not None and options.only != "ours":
        console.print(f"Docker's side needs an engine, and {missing}: measuring ours alone")
        options.only = "ours"
    if missing is not None:
        options.parts = [part for part in options.parts if part != "engine"]
    console.print(
        f"[dim]{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}: other work on the machine spoils this[/dim]"
    )
    raise SystemExit(asyncio.run(run(options, console)))


if __name__ == "__main__":
    main()
