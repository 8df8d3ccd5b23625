"""What only the leader's own process can tell: writes of its store, timed without a client or a socket between.

A whole manager runs on this process's loop, with its servers, its agent and everything that it does while it leads;
the other managers are processes of their own. All of them make durable what they acknowledge.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.failover import percentile
from bench.managers import HOST
from swarmcore.api.objects_pb2 import Config, Node
from swarmcore.api.types_pb2 import NodeStatus
from swarmcore.cli.swarmd import SWITCH_INTERVAL_SECONDS
from swarmcore.manager.manager import Manager
from swarmcore.node.config import NodeConfig
from swarmcore.node.node import run as run_node
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.cluster import Swarmd
from swarmcore.testing.ports import free_port

HOSTNAME = "inside"
READY_SECONDS = 120.0
JOIN_SECONDS = 90.0
LOOK_SECONDS = 0.02
WARM_UP_SECONDS = 1.0
DISK_BYTES = 512
"""About what one small write is on the log."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A manager that leads, on this very loop."""

    manager: Manager
    address: str

    @property
    def store(self) -> Store:
        return self.manager.store

    @property
    def voters(self) -> int:
        return len(self.manager.replica.membership.voters)


@contextlib.asynccontextmanager
async def leading(folder: Path) -> AsyncIterator[Inside]:
    """Run a manager in this process: a new cluster's first, or the one whose state is in `folder`."""
    address = f"{HOST}:{free_port()}"
    opened: asyncio.Future[Manager] = asyncio.get_running_loop().create_future()
    config = NodeConfig(
        state_dir=folder / "state",
        hostname=HOSTNAME,
        listen_remote_api=address,
        listen_control_api=folder / "swarm.sock",
        executors=("process",),
    )
    with _like_swarmd():
        running = asyncio.create_task(run_node(config, opened=opened.set_result), name="bench node")
        try:
            async with asyncio.timeout(READY_SECONDS):
                running.add_done_callback(lambda _: opened.cancel())
                try:
                    await opened
                except asyncio.CancelledError:
                    if running.done() and not running.cancelled():
                        running.result()
                    raise
                inside = Inside(opened.result(), address)
                await until(lambda: bool(inside.manager.replica.term and inside.store.view.cluster))
                await until(lambda: any(_is_up(node, HOSTNAME) for node in inside.store.view.node.all()))
            yield inside
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _is_up(node: Node, name: str) -> bool:
    return node.status.state == NodeStatus.READY and node.description.hostname == name


@contextlib.contextmanager
def _like_swarmd() -> Iterator[None]:
    """The interpreter's settings are those of `swarmd`, and what they were afterwards."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def until(fact: Callable[[], bool]) -> None:
    """Return when a fact of this process holds; the caller sets the deadline."""
    while not fact():  # noqa: ASYNC110 - any fact of any part: there is no one event
        await asyncio.sleep(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def followers(inside: Inside, folder: Path, count: int) -> AsyncIterator[list[Swarmd]]:
    """So many more managers, processes of their own, one after another: voters, with their nodes ready."""
    made: list[Swarmd] = []
    try:
        for _ in range(count):
            made.append(join(inside, folder / f"m{inside.voters + 1}"))
            wanted = inside.voters + 1
            async with asyncio.timeout(JOIN_SECONDS):
                await until(lambda wanted=wanted: inside.voters >= wanted)  # type: ignore[misc]
                # A vote comes with the log; what it says is applied, and served, some time later.
                name = made[-1].folder.name
                await until(lambda name=name: any(_is_up(node, name) for node in inside.store.view.node.all()))  # type: ignore[misc]
        yield made
    finally:
        for daemon in made:
            if daemon.is_running:
                await asyncio.to_thread(daemon.kill)


def join(inside: Inside, folder: Path) -> Swarmd:
    """Start one more manager; does not wait for it."""
    cluster = next(iter(inside.store.view.cluster.all()))
    flags = (
        *("--listen-remote-api", f"{HOST}:{free_port()}", "--executor", "process", "--hostname", folder.name),
        *("--join-addr", inside.address, "--join-token", cluster.root_ca.join_tokens.manager),
    )
    daemon = Swarmd(folder, flags)
    daemon.start()
    return daemon


@dataclass(frozen=True, slots=True)
class Commits:
    """Seconds of one writer's write, and of the disk's own part in it; medians."""

    write: float
    disk: float

    @property
    def rest(self) -> float:
        return self.write - self.disk


async def commits(inside: Inside, folder: Path, count: int) -> Commits:
    """One writer, one write after another, in turns with the bare disk."""
    id = await create(inside.store, "commit")
    await asyncio.sleep(WARM_UP_SECONDS)
    writes: list[float] = []
    syncs: list[float] = []
    descriptor = os.open(folder / "disk", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for number in range(count):
            start = time.perf_counter()
            await inside.store.update(change(id, number))
            writes.append(time.perf_counter() - start)
            if number % 10 == 9:
                syncs += await asyncio.to_thread(_sync_often, descriptor, 10)
    finally:
        os.close(descriptor)
    return Commits(median(writes), median(syncs))


def _sync_often(descriptor: int, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        data = os.urandom(DISK_BYTES)
        start = time.perf_counter()
        os.write(descriptor, data)
        os.fdatasync(descriptor)
        taken.append(time.perf_counter() - start)
    return taken


async def updates(inside: Inside, writers: int, seconds: float) -> float:
    """Durable updates a second of so many writers, each of which writes again as soon as its write is agreed."""
    ids = [await create(inside.store, f"update-{number}") for number in range(writers)]
    done = 0

    async def write(id: str) -> None:
        nonlocal done
        while True:
            await inside.store.update(change(id, done))
            done += 1

    tasks = [asyncio.create_task(write(id)) for id in ids]
    try:
        await asyncio.sleep(WARM_UP_SECONDS)
        before, start = done, time.monotonic()
        await asyncio.sleep(seconds)
        return (done - before) / (time.monotonic() - start)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def create(store: Store, name: str) -> str:
    """A config of that name; its id."""
    config = Config(id=f"bench-{name}")
    config.spec.annotations.name = name
    config.spec.data = bytes(64)
    await store.update(lambda tx: tx.config.create(config))
    return config.id


def change(id: str, number: int) -> Callable[[Transaction], None]:
    """A function that gives a config new labels."""

    def write(tx: Transaction) -> None:
        old = tx.config.get(id)
        assert old is not None
        config = Config()
        config.CopyFrom(old)
        config.spec.annotations.labels["number"] = str(number)
        tx.config.update(config)

    return write


@dataclass(frozen=True, slots=True)
class CatchUp:
    """A new manager of a large cluster: seconds from its start until it is a voter, and the leader's writes."""

    seconds: float
    before: float
    """99th percentile of a write before, in seconds."""
    meanwhile: float


async def catch_up(inside: Inside, folder: Path, seconds_before: float, pace: float) -> CatchUp:
    """Write at a steady pace, then let one more manager in and go on writing until it is a voter."""
    id = await create(inside.store, "catch-up")
    before: list[float] = []
    meanwhile: list[float] = []
    taken = before
    running: set[asyncio.Task[None]] = set()

    async def write(number: int) -> None:
        into, start = taken, time.perf_counter()
        await inside.store.update(change(id, number))
        into.append(time.perf_counter() - start)

    async def write_steadily() -> None:
        start, number = time.monotonic(), 0
        while True:
            number += 1
            task = asyncio.create_task(write(number))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(max(0.0, start + number / pace - time.monotonic()))

    writing = asyncio.create_task(write_steadily())
    daemon: Swarmd | None = None
    try:
        await asyncio.sleep(seconds_before)
        taken = meanwhile
        wanted, start = inside.voters + 1, time.monotonic()
        daemon = join(inside, folder / "late")
        async with asyncio.timeout(JOIN_SECONDS):
            await until(lambda: inside.voters >= wanted)
        seconds = time.monotonic() - start
        return CatchUp(seconds, percentile(before, 0.99), percentile(meanwhile, 0.99))
    finally:
        writing.cancel()
        await asyncio.gather(writing, *running, return_exceptions=True)
        if daemon is not None and daemon.is_running:
            await asyncio.to_thread(daemon.kill)
