"""Answers that come in pieces, stop in the middle, or are no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory
from swarmcore_podman_executor.streams import StreamError, ask

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.executor import HostInfo

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextlib.asynccontextmanager
async def service(answer: bytes, *, hangs: bool = False) -> AsyncIterator[str]:
    """Says `answer` to whoever asks, and goes, or stays and is silent."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if hangs:
                await over.wait()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="swf-") as folder:
        socket = str(Path(folder) / "s")
        server = await asyncio.start_unix_server(serve, socket)
        async with server:
            yield socket
            over.set()


async def body_of(answer: bytes) -> bytes:
    async with service(answer) as socket, ask(socket, "/x") as got:
        return b"".join([piece async for piece in got.chunks()])


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nabcde and what does not belong to it",
        HEAD + b"\r\nabcde",
    ],
)
async def test_a_body_is_read_to_its_end(answer: bytes) -> None:
    assert await body_of(answer) == b"abcde"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nabc",
        HEAD + b"Content-Length: -5\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
        HEAD + b"X: " + b"x" * 100_000,
    ],
)
async def test_what_is_cut_off_or_no_http_is_an_error(answer: bytes) -> None:
    with pytest.raises(StreamError):
        await body_of(answer)


async def test_a_service_that_says_nothing_is_waited_for_only_so_long() -> None:
    async with service(b"", hangs=True) as socket:
        with pytest.raises(TimeoutError):
            async with ask(socket, "/x", head_seconds=0.05):
                pass


async def test_an_answer_can_be_ended_from_outside() -> None:
    async with service(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", hangs=True) as socket, ask(socket, "/x") as got:
        reading = asyncio.ensure_future(got.body())
        await asyncio.sleep(0)
        got.abort()

        with pytest.raises(StreamError):
            await reading


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
