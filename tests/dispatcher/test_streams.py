"""The pump: at once when idle, gathered in a rush, and never long after the last change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from swarmcore.dispatcher.streams import IDLE_STREAMS, MAX_GATHER, Pump, Stream
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run

MANY = 1000


@asynccontextmanager
async def pumping() -> AsyncIterator[tuple[Pump, SimulatedClock]]:
    clock = SimulatedClock()
    pump = Pump(clock)
    running = asyncio.create_task(pump.run())
    try:
        yield pump, clock
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def streams(count: int) -> list[Stream]:
    return [Stream(None) for _ in range(count)]


async def test_few_streams_are_woken_at_once() -> None:
    async with pumping() as (pump, _):
        few = streams(IDLE_STREAMS)
        for stream in few:
            pump.mark(stream)
        await let_the_loop_run()

        assert all(stream.is_dirty for stream in few)


async def test_many_streams_are_woken_a_step_after_the_last_change() -> None:
    async with pumping() as (pump, clock):
        many = streams(MANY)
        for stream in many:
            pump.mark(stream)
        await let_the_loop_run()
        assert not any(stream.is_dirty for stream in many)

        await clock.advance(0.02)
        await let_the_loop_run(200)

        assert all(stream.is_dirty for stream in many)


async def test_many_streams_wait_for_tasks_that_are_coming() -> None:
    async with pumping() as (pump, clock):
        many = streams(MANY)
        pump.expect("task")
        for stream in many:
            pump.mark(stream)
        for _ in range(5):
            await clock.advance(0.02)
        assert not any(stream.is_dirty for stream in many)

        pump.expect_no_more("task")
        pump.mark(many[0])
        for _ in range(2):
            await clock.advance(0.02)
        await let_the_loop_run(200)

        assert all(stream.is_dirty for stream in many)


async def test_nobody_waits_for_ever_for_a_task_that_does_not_come() -> None:
    async with pumping() as (pump, clock):
        many = streams(MANY)
        pump.expect("task")
        for stream in many:
            pump.mark(stream)
        await clock.advance(MAX_GATHER + 0.02)
        await let_the_loop_run(200)
        assert all(stream.is_dirty for stream in many)

        others = streams(MANY)
        for stream in others:
            pump.mark(stream)
        await clock.advance(0.04)
        await let_the_loop_run(200)

        assert all(stream.is_dirty for stream in others)


async def test_a_rush_that_never_ends_is_served_all_the_same() -> None:
    async with pumping() as (pump, clock):
        many = streams(MANY)
        for _ in range(int(MAX_GATHER / 0.02) + 2):
            for stream in many:
                pump.mark(stream)
            await clock.advance(0.02)
        await let_the_loop_run(200)

        assert all(stream.is_dirty for stream in many)
