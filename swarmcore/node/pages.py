"""A few read-only pages over plain HTTP: metrics, and what this process is doing. Just enough of HTTP for that."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping

log = logging.getLogger("swarmcore.node")

REQUEST_SECONDS = 5.0
MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 32
TEXT = "text/plain; version=0.0.4; charset=utf-8"

Page = Callable[[], Awaitable[str]]


class Pages:
    """Serves pages by their path until it is closed. One request a connection."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self, bound: socket.socket) -> None:
        """Serve connections of a socket that is bound; it belongs to the pages from now on."""
        self._server = await asyncio.start_server(self._serve, sock=bound, limit=MAX_REQUEST_BYTES)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("a reader of pages went away, or asked for nothing")
        except asyncio.CancelledError:
            pass  # closing: nobody awaits this task but `aclose`
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        page = self._pages.get(path)
        if method not in ("GET", "HEAD"):
            status, text = "405 Method Not Allowed", "only GET and HEAD\n"
        elif page is None:
            status, text = "404 Not Found", f"there are: {' '.join(sorted(self._pages))}\n"
        else:
            status, text = "200 OK", await page()
        body = text.encode()
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        if method != "HEAD":
            writer.write(body)
        await writer.drain()


async def stacks() -> str:
    """Every task of this loop and where it waits, by name."""
    out = io.StringIO()
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    out.write(f"{len(tasks)} tasks\n")
    for task in tasks:
        out.write(f"\n{task.get_name()}\n")
        for frame in task.get_stack(limit=20):
            code = frame.f_code
            out.write(f"    {code.co_filename}:{frame.f_lineno} {code.co_qualname}\n")
    return out.getvalue()
