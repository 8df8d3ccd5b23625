"""Commands beside containers on a real engine, and what containers use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from swarmcore.plugin.engine_exec import EngineApi, container_usage, start_command, usage_of
from swarmcore.plugin.executor import ExecOptions, ExecutorError, TaskUsage, TemporaryError
from swarmcore.testing.engines import DockerEngine

CONTAINER = "beside"


@pytest.fixture
async def api(docker_engine: DockerEngine) -> AsyncIterator[EngineApi]:
    api = EngineApi(docker_engine.address, "/v1.41")
    body = {"Image": "redis:3.0.5", "Cmd": ["sleep", "86395"], "Env": ["COLOUR=blue"]}
    await api.call("POST", "/containers/create", params={"name": CONTAINER}, body=body)
    await api.call("POST", f"/containers/{CONTAINER}/start")
    yield api
    await api.call("DELETE", f"/containers/{CONTAINER}", params={"force": "1"})


async def run(api: EngineApi, *command: str, stdin: bytes | None = None, **options: Any) -> tuple[bytes, bytes, int]:
    session = await start_command(api, CONTAINER, ExecOptions(command=command, stdin=stdin is not None, **options))

    async def feed(data: bytes) -> None:
        await session.write(data)
        await session.close_input()

    feeding = asyncio.create_task(feed(stdin)) if stdin is not None else None
    out = {1: b"", 2: b""}
    try:
        async for stream, data in session.output():
            out[stream] += data
        return out[1], out[2], await session.wait()
    finally:
        await session.aclose()
        if feeding is not None:
            await feeding


@pytest.mark.engine
async def test_commands_run_in_the_container_with_streams_apart_and_their_exit_code(api: EngineApi) -> None:
    script = "echo $COLOUR $SHAPE; pwd; id -u; echo no >&2; exit 5"

    found = await run(api, "sh", "-c", script, env=["SHAPE=round"], dir="/tmp", user="65534")

    assert found == (b"blue round\n/tmp\n65534\n", b"no\n", 5)


@pytest.mark.engine
async def test_any_amount_of_input_comes_back(api: EngineApi) -> None:
    data = os.urandom(2_000_000)

    assert await run(api, "cat", stdin=data) == (data, b"", 0)


@pytest.mark.engine
async def test_a_command_that_reads_none_of_its_input_ends_as_it_does(api: EngineApi) -> None:
    found = await run(api, "sh", "-c", "echo done; exit 3", stdin=bytes(3_000_000))

    assert found == (b"done\n", b"", 3)


@pytest.mark.engine
async def test_a_terminal_has_its_size(api: EngineApi) -> None:
    out, _, code = await run(api, "sh", tty=True, rows=33, columns=99, stdin=b"stty size\nexit 6\n")

    assert b"33 99\r\n" in out and code == 6


@pytest.mark.engine
async def test_closing_ends_the_command(api: EngineApi) -> None:
    session = await start_command(api, CONTAINER, ExecOptions(command=["sh", "-c", "trap '' TERM; exec sleep 86394"]))
    await asyncio.wait_for(session.aclose(), 10)

    processes = (await api.call("GET", f"/containers/{CONTAINER}/top"))["Processes"]
    assert [row[-1] for row in processes] == ["sleep 86395"]


@pytest.mark.engine
async def test_what_can_not_be_run_is_said_in_the_engines_words(api: EngineApi) -> None:
    with pytest.raises(ExecutorError, match="No such container"):
        await start_command(api, "nosuch", ExecOptions(command=["ls"]))
    out, said, code = await run(api, "nosuchprogram")

    assert b"executable file not found" in said and said.endswith(b"\n") and out == b"" and code in (126, 127)


@pytest.mark.engine
async def test_a_container_tells_what_it_uses(api: EngineApi) -> None:
    usage = await container_usage(api, CONTAINER)

    assert usage.cpu_seconds is not None and usage.memory_bytes and usage.memory_limit_bytes
    assert usage.pids == 1 and usage.network_received_bytes is not None


async def test_an_engine_that_is_away_is_a_reason_to_try_again() -> None:
    with pytest.raises(TemporaryError, match="no answer from the engine"):
        await container_usage(EngineApi("unix:///nosuch/socket", "/v1.41"), CONTAINER)


@pytest.mark.parametrize(
    ("stats", "usage"),
    [
        ({}, TaskUsage(block_read_bytes=0, block_written_bytes=0)),
        (
            {
                "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
                "memory_stats": {"usage": 100, "limit": 1000, "stats": {"total_inactive_file": 40}},
                "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}},
                "blkio_stats": {
                    "io_service_bytes_recursive": [{"op": "Read", "value": 7}, {"op": "write", "value": 9}]
                },
                "pids_stats": {"current": 3},
            },
            TaskUsage(
                cpu_seconds=1.5,
                memory_bytes=60,
                memory_limit_bytes=1000,
                network_received_bytes=11,
                network_sent_bytes=22,
                block_read_bytes=7,
                block_written_bytes=9,
                pids=3,
            ),
        ),
        (
            {"networks": None, "blkio_stats": {"io_service_bytes_recursive": None}, "memory_stats": {}},
            TaskUsage(block_read_bytes=0, block_written_bytes=0),
        ),
    ],
)
def test_a_sample_is_read_whatever_it_lacks(stats: dict[str, Any], usage: TaskUsage) -> None:
    assert usage_of(stats) == usage


@pytest.mark.engine
async def test_a_signal_reaches_a_command_that_has_only_just_begun(api: EngineApi) -> None:
    script = "trap 'exit 63' TERM; echo ready; while :; do sleep 0.05; done"
    for _ in range(8):
        session = await start_command(api, CONTAINER, ExecOptions(command=["sh", "-c", script]))
        output = session.output()
        await anext(output)

        await session.signal("SIGTERM")
        async with asyncio.timeout(10):
            assert [piece async for piece in output] == []

        assert await session.wait() == 63
        await session.aclose()
