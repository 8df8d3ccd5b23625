"""The simulated time and network do what the runs rely on."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from swarmcore.testing.simulation.files import Files
from swarmcore.testing.simulation.loop import SimulatedLoop, StuckError
from swarmcore.testing.simulation.network import Network
from swarmcore.testing.simulation.process import MemberClock, Process


def run(work: object) -> None:
    loop = SimulatedLoop()
    try:
        loop.run_until_complete(work)  # type: ignore[arg-type]
    finally:
        loop.close()


def test_an_hour_takes_no_time() -> None:
    async def work() -> None:
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        assert asyncio.get_running_loop().time() == before + 3600

    run(work())


def test_a_loop_where_everything_waits_says_so() -> None:
    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(StuckError):
        run(work())


def test_a_clock_that_drifts_fires_early() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        clock = MemberClock(Process(Files(Random(1)), Random(1), lambda process: None), loop)
        clock.drift(2.0)
        await clock.sleep_until(clock.monotonic() + 10)
        assert loop.time() == pytest.approx(5)

    run(work())


def test_a_process_that_stands_still_notices_everything_later() -> None:
    process = Process(Files(Random(1)), Random(1), lambda process: None)
    noticed: list[int] = []
    process.is_paused = True
    process.soon(lambda: noticed.append(1))
    assert noticed == []

    process.resume()

    assert noticed == [1]


def test_in_a_ring_of_five_everybody_reaches_two() -> None:
    async def work() -> None:
        network = Network(Random(1), lambda message: None, lambda message: None)
        network.make_ring([1, 2, 3, 4, 5])
        for one in range(1, 6):
            assert sum(not network.is_cut(one, other) for other in range(1, 6) if other != one) == 2

    run(work())


def test_one_way_means_the_other_way_is_open() -> None:
    async def work() -> None:
        network = Network(Random(1), lambda message: None, lambda message: None)
        network.cut_one_way([1], [2, 3])
        assert network.is_cut(1, 2)
        assert not network.is_cut(2, 1)

    run(work())
