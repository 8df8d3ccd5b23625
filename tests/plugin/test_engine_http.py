"""Answers that come in pieces, stop in the middle, or are no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmcore.plugin.engine_http import StreamError, ask, frames, words_of

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
    async with service(answer) as socket, ask(f"unix://{socket}", "GET", "/x") as got:
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
            async with ask(f"unix://{socket}", "GET", "/x", head_seconds=0.05):
                pass


async def test_an_answer_can_be_ended_from_outside() -> None:
    async with (
        service(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", hangs=True) as socket,
        ask(f"unix://{socket}", "GET", "/x") as got,
    ):
        reading = asyncio.ensure_future(got.body())
        await asyncio.sleep(0)
        got.abort()

        with pytest.raises(StreamError):
            await reading


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def test_frames_are_found_wherever_the_output_is_cut() -> None:
    data = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x01d"

    whole = [frame async for frame in frames(pieces(data))]
    bytewise = [frame async for frame in frames(pieces(*(data[at : at + 1] for at in range(len(data)))))]

    assert whole == bytewise == [(1, b"abc"), (2, b""), (2, b"d")]


async def test_what_is_no_output_of_an_engine_is_an_error() -> None:
    with pytest.raises(StreamError):
        [frame async for frame in frames(pieces(b"no such thing"))]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "/run/x.sock"), "No such file or directory"),
        (TimeoutError(), "it did not answer in time"),
        (StreamError("the answer was cut off\nhere"), "the answer was cut off"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_what_failed_is_said_in_one_line_without_numbers(error: OSError, words: str) -> None:
    assert words_of(error) == words
