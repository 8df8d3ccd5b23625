"""Descriptors: an engine that is away costs none, and one that is there one for each thread."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest
from swarmcore_docker_executor.engine import Engine
from swarmcore_docker_executor.images import Images

from swarmcore.plugin.engine_calls import THREADS
from swarmcore.plugin.executor import TemporaryError
from swarmcore.testing.fake_docker import Answer, fake_docker


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_an_engine_that_is_away_costs_no_descriptors(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/nosuch.sock", "1.41")
    before = descriptors()
    gc.disable()
    try:
        for _ in range(20):
            with pytest.raises(TemporaryError, match="no answer from the Docker engine"):
                await engine.call("GET", "/info")
        after = descriptors()
    finally:
        gc.enable()
        await engine.aclose()

    assert after == before


async def test_each_thread_keeps_one_connection_whatever_it_asked_for() -> None:
    async def answer(method: str, path: str) -> Answer:
        return 200, {}

    async with fake_docker(answer) as docker:
        engine = Engine(docker.address, "1.41")
        before = descriptors()
        await asyncio.gather(*(engine.call("GET", f"/containers/{number}/json") for number in range(100)))
        # Both ends are in this process.
        opened = descriptors() - before
        await engine.aclose()

    assert opened <= 2 * THREADS


async def test_threads_of_an_engine_that_hangs_end_with_the_executor() -> None:
    over = asyncio.Event()

    async def answer(method: str, path: str) -> Answer:
        if path.endswith("/json"):
            return 404, {"message": "no such image"}
        await over.wait()
        return 200, {}

    before = threading.active_count()
    async with fake_docker(answer) as docker:
        engine = Engine(docker.address, "1.41")
        images = Images(engine)
        calls = [asyncio.ensure_future(engine.call("GET", "/info")) for _ in range(3)]
        pull = asyncio.ensure_future(images.fetch("redis", ""))
        await docker.wait_asked("/info", times=3)
        await docker.wait_asked("/images/create")

        images.close()
        await engine.aclose()
        ended = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(each) for each in ended} == {TemporaryError}
        await asyncio.wait([pull])
        async with asyncio.timeout(5):
            while True:
                if threading.active_count() <= before:
                    break
                await asyncio.sleep(0.005)
        over.set()
