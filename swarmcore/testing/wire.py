"""A network cable between a client and a server on loopback, which tests cut, clog or limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_READ_BYTES = 16 * 1024


class Wire:
    """Connections to `address` end at `target`, as long as the wire is whole."""

    def __init__(self, target: str) -> None:
        """`target` is `host:port`; it may change while the wire is in use."""
        self.target = target
        self.address = ""
        self.carried = 0
        """Bytes that went to the target."""
        self.limit: int | None = None
        """Everything is swallowed once that many bytes went to the target."""
        self.connections = 0
        """So many were made."""
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """End all connections, as a crash of the other side does. New ones are made again."""
        for writer in self._open:
            writer.transport.abort()

    def swallow(self) -> None:
        """From now on nothing arrives on any connection, and nobody is told: a cable that was pulled."""
        self._flows.clear()

    def mend(self) -> None:
        """Carry new connections again. Those that were swallowed stay as they are."""
        self._flows = asyncio.Event()
        self._flows.set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody connects."""
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flows = self._flows
        far: asyncio.StreamWriter | None = None
        self._open.add(writer)
        try:
            await flows.wait()
            host, _, port = self.target.rpartition(":")
            far_reader, far = await asyncio.open_connection(host, int(port))
            self._open.add(far)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far, flows, is_counted=True))
                group.create_task(self._pump(far_reader, writer, flows, is_counted=False))
        except* OSError:
            pass
        finally:
            for one in (writer, far):
                if one is not None:
                    self._open.discard(one)
                    one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event, *, is_counted: bool
    ) -> None:
        while data := await reader.read(_READ_BYTES):
            if is_counted:
                self.carried += len(data)
                if self.limit is not None and self.carried >= self.limit:
                    self.limit = None
                    self.swallow()
            await flows.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wire(target: str) -> AsyncIterator[Wire]:
    """A whole wire to `target`, on a free port."""
    made = Wire(target)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    made.address = f"{host}:{port}"
    try:
        yield made
    finally:
        server.close()
        await made.aclose()
        await server.wait_closed()
