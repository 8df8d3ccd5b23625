"""Pages over plain HTTP: what is asked for, what is not there, and readers that do not behave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from swarmcore.node.listeners import bind_tcp
from swarmcore.node.pages import MAX_CONNECTIONS, Pages, stacks


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[int]:
    async def greeting() -> str:
        return "hello 1\n"

    bound = bind_tcp("127.0.0.1:0", "--listen-metrics")
    pages = Pages({"/metrics": greeting, "/debug/tasks": stacks})
    await pages.listen(bound)
    try:
        yield bound.getsockname()[1]
    finally:
        await pages.aclose()


async def ask(port: int, request: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return (await reader.read()).decode()
    except ConnectionError:
        return ""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /metrics HTTP/1.1", "200 OK", "hello 1\n"),
        ("GET /metrics?x=1 HTTP/1.0", "200 OK", "hello 1\n"),
        ("HEAD /metrics HTTP/1.1", "200 OK", ""),
        ("GET / HTTP/1.1", "404 Not Found", "there are: /debug/tasks /metrics\n"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed", "only GET and HEAD\n"),
        ("\x00\xff", "405 Method Not Allowed", "only GET and HEAD\n"),
    ],
)
async def test_a_request_is_answered_once(request_line: str, status: str, body: str) -> None:
    async with served() as port:
        answer = await ask(port, f"{request_line}\r\nHost: x\r\n\r\n".encode("latin-1"))

    head, _, got = answer.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}\r\n") and "Connection: close" in head
    assert got == body


async def test_a_request_without_an_end_is_not_kept() -> None:
    async with served() as port:
        assert await ask(port, b"GET /" + b"x" * 100_000) == ""
        assert "200 OK" in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_readers_that_say_nothing_do_not_pile_up() -> None:
    async with served() as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") == ""
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()

        tries = (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") for _ in range(1000))
        assert any(["200 OK" in answer async for answer in tries])


async def test_the_tasks_of_the_loop_are_shown_with_where_they_wait() -> None:
    waiting = asyncio.create_task(asyncio.Event().wait(), name="one that waits")
    async with served() as port:
        answer = await ask(port, b"GET /debug/tasks HTTP/1.1\r\n\r\n")
    waiting.cancel()

    assert "one that waits" in answer and "Event.wait" in answer
