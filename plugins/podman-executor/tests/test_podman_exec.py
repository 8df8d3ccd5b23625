"""Commands beside containers of a real Podman engine, where it is not Docker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from swarmcore_podman_executor import differences

from swarmcore.plugin.engine_exec import EngineApi, start_command
from swarmcore.plugin.executor import ExecOptions
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine


@pytest.fixture
def engine(podman_engine: PodmanEngine) -> Iterator[PodmanEngine]:
    podman_engine.podman("run", "-d", "--name", "beside", "--network=none", "docker.io/library/redis:3.0.5")
    yield podman_engine
    podman_engine.podman("rm", "-f", "--time=0", "beside")


async def run(engine: PodmanEngine, *command: str, stdin: bytes) -> tuple[bytes, bytes, int]:
    api = EngineApi(engine.address, "/v1.41")
    options = ExecOptions(command=command, stdin=True)
    session = await start_command(api, "beside", options, reword=differences.command_words)
    feeding = asyncio.create_task(session.write(stdin))
    out = {1: b"", 2: b""}
    try:
        async for stream, data in session.output():
            out[stream] += data
        return out[1], out[2], await session.wait()
    finally:
        await session.aclose()
        await feeding


async def test_a_command_that_leaves_most_of_its_input_ends_as_it_does_or_says_what_may_be_lost(
    engine: PodmanEngine,
) -> None:
    out, err, code = await run(engine, "head", "-c", "3", stdin=b"x" * 3_000_000)

    assert code == 0
    # Whether conmon's reset or the command's last output is first at the service is chance.
    if err:
        assert err.startswith(b"Warning: ") and b"may have lost its last output" in err and err.count(b"\n") == 1
        assert out in (b"xxx", b"")
    else:
        assert out == b"xxx"


async def test_a_command_that_can_not_run_is_one_line(engine: PodmanEngine) -> None:
    out, err, code = await run(engine, "nosuchprogram", stdin=b"")

    assert (out, code) == (b"", 127)
    assert b"executable file not found" in err and err.count(b"\n") == 1
