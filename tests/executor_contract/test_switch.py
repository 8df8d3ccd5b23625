"""The switch in front of an engine's socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmcore.testing.executor_contract.switch import switch
from swarmcore.testing.fake_docker import Answer, fake_docker


async def answered(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"GET /v1/ping HTTP/1.1\r\n\r\n")
        await writer.drain()
        return await reader.readline()
    finally:
        writer.transport.abort()


async def test_an_engine_is_reached_through_it_while_it_is_on(tmp_path: Path) -> None:
    async def ok(method: str, path: str) -> Answer:
        return 200, {}

    async with fake_docker(ok) as docker:
        with await asyncio.to_thread(lambda: switch(docker.address.removeprefix("unix://"), tmp_path)) as switched:
            assert b" 200 " in await answered(switched.socket)

            await asyncio.to_thread(switched.off)
            with pytest.raises(OSError, match=r"No such file|refused"):
                await answered(switched.socket)

            await asyncio.to_thread(switched.on)
            assert b" 200 " in await answered(switched.socket)


async def test_connections_end_when_it_is_switched_off(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never(method: str, path: str) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        return 200, {}

    async with fake_docker(never) as docker:
        with switch(docker.address.removeprefix("unix://"), tmp_path) as switched:
            waiting = asyncio.create_task(answered(switched.socket))
            await asked.wait()

            await asyncio.to_thread(switched.off)

            async with asyncio.timeout(10):
                try:
                    assert await waiting == b""
                except ConnectionError:
                    pass
