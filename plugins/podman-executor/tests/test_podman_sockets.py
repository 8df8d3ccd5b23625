"""Descriptors and threads: a service that is away costs none, one that hangs holds nobody up."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from swarmcore_podman_executor.engine import Engine
from swarmcore_podman_executor.images import Images
from swarmcore_podman_executor.logs import read_logs

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.engine_calls import THREADS, EngineError
from swarmcore.plugin.engine_exec import container_usage, start_command
from swarmcore.plugin.executor import ExecOptions, LogOptions, TemporaryError
from swarmcore.testing.fake_docker import Answer, fake_docker


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not fact():  # noqa: ASYNC110 - a thread's end tells nobody
            await asyncio.sleep(0.01)


async def test_a_service_that_is_away_costs_no_descriptors(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/nosuch.sock")
    before = descriptors()
    gc.disable()
    try:
        for _ in range(20):
            with pytest.raises(TemporaryError, match=r"no answer from the Podman engine at .*No such file"):
                await engine.call("GET", "/info")
        after = descriptors()
    finally:
        gc.enable()
        await engine.aclose()

    assert after == before


async def test_whatever_is_asked_of_a_service_that_is_away_tells_it_in_the_same_words(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/nosuch.sock")
    said = []
    asked: tuple[Awaitable[object], ...] = (
        engine.call("GET", "/info"),
        container_usage(engine.api, "x"),
        start_command(engine.api, "x", ExecOptions(command=["true"])),
        anext(read_logs(engine, "x", LogOptions(), set())),
    )
    for ask in asked:
        with pytest.raises(TemporaryError) as raised:
            await ask
        said.append(str(raised.value))
    await engine.aclose()

    assert all(each.endswith(f"engine at unix://{tmp_path}/nosuch.sock: No such file or directory") for each in said)


async def test_each_thread_keeps_one_connection_whatever_it_asked_for() -> None:
    async def answer(method: str, path: str) -> Answer:
        return 200, {}

    async with fake_docker(answer) as podman:
        engine = Engine(podman.address)
        before = descriptors()
        await asyncio.gather(*(engine.call("GET", f"/containers/{number}/json") for number in range(100)))
        # Both ends are in this process.
        opened = descriptors() - before
        await engine.aclose()

    assert opened <= 2 * THREADS


async def test_an_error_is_told_in_the_engines_words() -> None:
    async def answer(method: str, path: str) -> Answer:
        return 500, {"cause": "disk full", "message": "no space left on device", "response": 500}

    async with fake_docker(answer) as podman:
        engine = Engine(podman.address)
        with pytest.raises(EngineError, match=r"^no space left on device$") as raised:
            await engine.call("POST", "/containers/create", body={})
        await engine.aclose()

    assert raised.value.code == 500


@pytest.mark.parametrize(
    ("version", "rootless", "words"),
    [("3.4.4", False, r"Podman 3\.4\.4 is too old"), ("4.3.1", True, "is rootless: run swarmd as its user")],
)
async def test_a_service_that_can_not_serve_is_refused_in_one_line(
    version: str, rootless: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    info = {"version": {"Version": version}, "host": {"security": {"rootless": rootless}}}

    async def answer(method: str, path: str) -> Answer:
        return 200, info

    async with fake_docker(answer) as podman:
        with pytest.raises(ConfigurationError, match=words):
            await Engine.connect(podman.address)


async def test_threads_of_a_service_that_hangs_end_with_the_executor() -> None:
    over = asyncio.Event()

    async def answer(method: str, path: str) -> Answer:
        if path.endswith("/json"):
            return 404, {"message": "no such image"}
        await over.wait()
        return 200, {}

    before = threading.active_count()
    async with fake_docker(answer) as podman:
        engine = Engine(podman.address)
        images = Images(engine)
        calls = [asyncio.ensure_future(engine.call("GET", "/info")) for _ in range(3)]
        calls.append(asyncio.ensure_future(images.fetch("redis", "")))
        await podman.wait_asked("/info", times=3)
        await podman.wait_asked("/images/pull")

        images.close()
        await engine.aclose()

        await until(lambda: threading.active_count() <= before)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        over.set()
