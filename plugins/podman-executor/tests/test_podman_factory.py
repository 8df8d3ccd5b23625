"""Whether there is a Podman service, and what is said where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.executor import HostInfo

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextlib.asynccontextmanager
async def service(answer: bytes) -> AsyncIterator[str]:
    """Says `answer` to whoever asks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="swf-") as folder:
        socket = str(Path(folder) / "s")
        async with await asyncio.start_unix_server(serve, socket):
            yield socket


async def test_docker_is_not_taken_for_podman(tmp_path: Path) -> None:
    host = HostInfo(state_dir=str(tmp_path))
    async with service(HEAD + b"Api-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK") as socket:
        docker = await PodmanFactory().available(HostInfo(state_dir=host.state_dir, engine_addr=f"unix://{socket}"))
    async with service(HEAD + b"Libpod-API-Version: 4.3.1\r\nContent-Length: 2\r\n\r\nOK") as socket:
        podman = await PodmanFactory().available(HostInfo(state_dir=host.state_dir, engine_addr=f"unix://{socket}"))

    assert (docker, podman) == (False, True)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix:///no/such.sock", "no Podman engine answers.*No such file.*--engine-addr"),
        ("tcp://127.0.0.1:1", "unix://"),
    ],
)
async def test_an_engine_that_is_not_there_is_said_in_one_line(tmp_path: Path, address: str, words: str) -> None:
    host = HostInfo(state_dir=str(tmp_path), engine_addr=address)

    assert not await PodmanFactory().available(host)
    with pytest.raises(ConfigurationError, match=words) as raised:
        await PodmanFactory().create(host)

    assert "\n" not in str(raised.value)
