"""A unix socket in front of an engine's own that can be switched off: an engine that stops, without stopping it.

It runs as a process of its own (`python -m swarmcore.testing.executor_contract.switch ENGINE SOCKET`), so that its
connections are not taken for those of the executor under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 64 * 1024
WORDS: Final = ("on", "off")


class Switch:
    """The process, seen from outside. `on` and `off` block until it is so."""

    def __init__(self, engine: str, socket: Path) -> None:
        self.socket = socket
        self._process = subprocess.Popen(
            [sys.executable, "-m", "swarmcore.testing.executor_contract.switch", engine, str(socket)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def on(self) -> None:
        self._say("on")

    def off(self) -> None:
        self._say("off")

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline().decode().strip()
        if answer != word:
            raise RuntimeError(f"the switch in front of the engine ended: {answer!r}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=10)
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def switch(engine: str, folder: Path) -> Iterator[Switch]:
    """A switch, which is on, in front of the socket `engine`."""
    made = Switch(engine, folder / "switched.sock")
    try:
        made.on()
        yield made
    finally:
        made.close()


class _Relay:
    def __init__(self, engine: str, socket: str) -> None:
        self._engine = engine
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def on(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._serve, self._socket)

    async def off(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._socket)
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            engine_reader, engine_writer = await asyncio.open_unix_connection(self._engine)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, engine_writer}
        self._open |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, engine_writer))
                group.create_task(_copy(engine_reader, writer))
        except* OSError:
            pass
        finally:
            self._open -= both
            for each in both:
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    # One side has said all; the other may go on.
    if writer.can_write_eof():
        writer.write_eof()


async def _main(engine: str, socket: str) -> None:
    relay = _Relay(engine, socket)
    while line := await asyncio.to_thread(sys.stdin.readline):
        word = line.strip()
        if word in WORDS:
            await (relay.on() if word == "on" else relay.off())
            print(word, flush=True)
    await relay.off()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
