"""How long a group of three managers takes no writes after its leader went, and whether it forgets one that it took.

Two clients. `idle`: nobody writes; the leader goes; one client asks a survivor, again whenever it is refused. `busy`:
100 writes a second are begun over the survivors all the time, and the first that was begun after the leader went and is
acknowledged ends the measurement. Each write has a name of its own, and in the end every manager must know them all.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.groups import CALLS_AT_ONCE, NUMBERS, CallRefused, Group

WRITES_PER_SECOND = 100.0
REFUSED_PAUSE_SECONDS = 0.01
SETTLE_SECONDS = 1.0
GIVE_UP_SECONDS = 90.0


@dataclass(slots=True)
class Failovers:
    """What came of many ends of leaders, by kind."""

    idle_kills: list[float] = field(default_factory=list)
    busy_kills: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    acknowledged: int = 0
    lost: int = 0
    """Acknowledged writes that some manager does not know in the end."""
    refusals: Counter[str] = field(default_factory=Counter)
    """How often a client was told what."""


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: of 30 values, the 99th percentile is the largest."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def summary(values: Sequence[float]) -> str:
    """Median, 99th percentile and how many."""
    return f"{median(values):.2f} / {percentile(values, 0.99):.2f} ({len(values)})"


class _Client:
    """Writes under ever new names, and remembers what was acknowledged."""

    def __init__(self, group: Group, failovers: Failovers) -> None:
        self._group = group
        self._failovers = failovers
        self._count = 0
        self.acknowledged: set[str] = set()

    async def try_write(self, via: int) -> bool:
        self._count += 1
        name = f"w{self._count}"
        try:
            await self._group.write(via, name)
        except CallRefused as error:
            self._failovers.refusals[str(error)[:100]] += 1
            return False
        self.acknowledged.add(name)
        return True

    async def write(self, via: int) -> None:
        """Write once, however often it has to be tried. Raises TimeoutError."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not await self.try_write(via):  # noqa: ASYNC110 - nobody tells a client when to ask again
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)


class _Load:
    """Begins writes at a steady pace, whatever becomes of the earlier ones, up to a number under way."""

    def __init__(self, client: _Client, via: Sequence[int]) -> None:
        self._client = client
        self._via = via
        self._tasks: set[asyncio.Task[None]] = set()
        self._since: float | None = None
        self._served: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        start, count = time.monotonic(), 0
        try:
            while True:
                count += 1
                if len(self._tasks) < CALLS_AT_ONCE:
                    task = asyncio.create_task(self._write(self._via[count % len(self._via)]))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(max(0.0, start + count / WRITES_PER_SECOND - time.monotonic()))
        finally:
            # Not cancelled: a write that is acknowledged to nobody could not be counted.
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, via: int) -> None:
        begun = time.monotonic()
        is_acknowledged = await self._client.try_write(via)
        is_later = self._since is not None and begun >= self._since
        if is_acknowledged and is_later and not self._served.done():
            self._served.set_result(time.monotonic())

    async def served_after(self, moment: float) -> float:
        """When a write that was begun after `moment` was acknowledged first."""
        self._since = moment
        async with asyncio.timeout(GIVE_UP_SECONDS):
            return await self._served


async def failovers(group: Group, *, idle_kills: int, busy_kills: int, stops: int) -> Failovers:
    """End the leader so often; it comes back each time before the next goes."""
    result = Failovers()
    client = _Client(group, result)
    for _ in range(idle_kills):
        result.idle_kills.append(await _idle(group, client, signal.SIGKILL))
    for _ in range(busy_kills):
        result.busy_kills.append(await _busy(group, client))
    for _ in range(stops):
        result.stops.append(await _idle(group, client, signal.SIGTERM))
    await group.leader()
    for number in NUMBERS:
        result.lost = max(result.lost, len(client.acknowledged - await group.written(number)))
    result.acknowledged = len(client.acknowledged)
    return result


async def _begin(group: Group, client: _Client) -> tuple[int, list[int]]:
    """The leader and the others, in a group that is whole, has had a moment's peace and takes writes."""
    await group.leader()
    await asyncio.sleep(SETTLE_SECONDS)
    leader = await group.leader()
    others = [number for number in NUMBERS if number != leader]
    for number in others:
        await client.write(number)
    return leader, others


async def _idle(group: Group, client: _Client, how: signal.Signals) -> float:
    leader, others = await _begin(group, client)
    start = time.monotonic()
    group.end(leader, how)
    await client.write(others[0])
    seconds = time.monotonic() - start
    await group.start_again(leader)
    return seconds


async def _busy(group: Group, client: _Client) -> float:
    leader, others = await _begin(group, client)
    load = _Load(client, others)
    running = asyncio.create_task(load.run())
    try:
        await asyncio.sleep(SETTLE_SECONDS)
        start = time.monotonic()
        group.end(leader, signal.SIGKILL)
        seconds = await load.served_after(start) - start
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await group.start_again(leader)
    return seconds
