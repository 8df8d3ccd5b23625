"""Runs one seed: puts the simulated disk, clock and thread in the place of the real ones, and a group on them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from types import ModuleType
from typing import Any
from unittest.mock import patch

from swarmcore.raft.types import Settings
from swarmcore.replication import (
    applier,
    durable,
    frames,
    keys,
    log_file,
    replica,
    snapshot_file,
    snapshots,
    state_folder,
)
from swarmcore.store import store
from swarmcore.testing.simulation.files import SimulatedOs
from swarmcore.testing.simulation.group import Group, ViolationError
from swarmcore.testing.simulation.history import Outcome
from swarmcore.testing.simulation.loop import SimulatedLoop, StuckError
from swarmcore.testing.simulation.process import SimulatedDisk

_FILE_CODE: tuple[ModuleType, ...] = (durable, frames, keys, log_file, snapshot_file, state_folder)
_PIECE_BYTES = 200
_TIMED_CODE: tuple[ModuleType, ...] = (applier, snapshots, store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one seed. `violation` is None when everything held."""

    seed: int
    violation: str | None
    simulated_seconds: float
    real_seconds: float
    elections: int
    agreed: int
    acknowledged: int
    counts: Counter[str]
    """What happened, and what was looked at, how often."""
    transcript: list[str]
    digest: str


class _Time:
    """In the place of the module `time`: the loop's, on a processor that is at times slow."""

    def __init__(self, loop: SimulatedLoop, chance: Random) -> None:
        self._loop = loop
        self._chance = chance
        self._is_slow = chance.random() < 0.3

    def monotonic(self) -> float:
        return self._loop.time() + (self._chance.random() * 0.015 if self._is_slow else 0.0)

    def time(self) -> float:
        return self._loop.time()


class _Locks:
    """In the place of the module `fcntl`: nobody else opens a simulated folder."""

    LOCK_EX = LOCK_NB = 0

    @staticmethod
    def flock(descriptor: int, operation: int) -> None:
        pass


@contextmanager
def _simulated(loop: SimulatedLoop, chance: Random) -> Iterator[None]:
    os: Any = SimulatedOs(chance)
    patches = [patch.object(module, "os", os) for module in _FILE_CODE]
    timer = _Time(loop, chance)
    patches += [patch.object(module, "time", timer) for module in _TIMED_CODE]
    patches.append(patch.object(state_folder, "fcntl", _Locks))
    patches += [patch.object(module, "Disk", SimulatedDisk) for module in (replica, snapshots)]
    # Else a snapshot of so small a state would be one piece, and never break in its middle.
    patches.append(patch.object(store, "SNAPSHOT_PIECE_BYTES", _PIECE_BYTES))
    # Small messages, and few of them under way: what a large state does to the pace of real ones.
    settings = partial(
        Settings,
        max_message_bytes=chance.choice((1 << 20, 300, 40)),
        max_inflight=chance.choice((256, 4, 2)),
        max_inflight_bytes=chance.choice((1 << 23, 1000, 100)),
    )
    patches.append(patch.object(replica, "Settings", settings))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def simulate(seed: int, *, is_traced: bool = False) -> Result:
    """Run one seed to its end. The same seed runs the same way each time, traced or not."""
    loop = SimulatedLoop()
    errors: list[str] = []
    loop.set_exception_handler(lambda _, context: errors.append(_describe(context)))
    started = time.perf_counter()
    group: Group | None = None

    async def main() -> None:
        nonlocal group
        group = Group(seed, is_traced=is_traced)
        await group.run()

    violation: str | None = None
    with _simulated(loop, Random(~seed)):
        try:
            loop.run_until_complete(main())
        except (ViolationError, StuckError) as error:
            violation = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, this seed found it
            violation = f"{type(error).__name__}: {error}"
        finally:
            loop.close()
            asyncio.set_event_loop(None)
    if violation is None and errors:
        violation = errors[0]
    assert group is not None
    return Result(
        seed=seed,
        violation=violation,
        simulated_seconds=loop.time(),
        real_seconds=time.perf_counter() - started,
        elections=group.elections,
        agreed=len(group.invariants.agreed),
        acknowledged=sum(operation.outcome is Outcome.DONE for operation in group.clients.operations),
        counts=group.counts,
        transcript=group.transcript,
        digest=group.digest(),
    )


def _describe(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context['message']}: {error!r}"
