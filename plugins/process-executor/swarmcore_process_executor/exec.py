"""A command beside a task: a process of the agent's own that takes on what makes the task's process the task's."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Executor as Pool
from pathlib import Path
from typing import Final

from swarmcore.plugin.executor import ExecOptions, ExecSession, ExecutorError
from swarmcore_process_executor.processes import Identity, wait_ended

START_SECONDS: Final = 10.0
TERM_SECONDS: Final = 1.5
LINGER_SECONDS: Final = 0.3
"""After the command has ended, for what is still in its pipes; others may hold them open for ever."""
PIECE_BYTES: Final = 32 * 1024
UNFINISHED: Final = 4
_LAUNCHER: Final = Path(__file__).with_name("exec_launcher.py")


class Command(ExecSession):
    """One command. Its process leads a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes], tty: bool) -> None:
        self._process = process
        self._tty = tty
        self._readers: dict[int, asyncio.StreamReader] = {}
        self._transports: list[asyncio.BaseTransport] = []
        self._input: asyncio.StreamWriter | None = None
        self._writing: asyncio.WriteTransport | None = None
        self._flow: _Input | None = None
        self._master = -1
        self._ended = asyncio.ensure_future(_wait(process))

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """What it writes, until it has ended and its pipes are empty."""
        pieces: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(UNFINISHED)
        pumps = [asyncio.create_task(_pump(stream, reader, pieces)) for stream, reader in self._readers.items()]
        waiting = len(pumps)
        try:
            while waiting:
                getting = asyncio.ensure_future(pieces.get())
                try:
                    await asyncio.wait({getting, self._ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not getting.done():
                        await asyncio.wait({getting}, timeout=LINGER_SECONDS)
                    if not getting.done():
                        return
                    stream, data = getting.result()
                finally:
                    getting.cancel()
                if data:
                    yield stream, data
                else:
                    waiting -= 1
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def write(self, data: bytes) -> None:
        if self._input is None:
            return
        try:
            self._input.write(data)
            await self._input.drain()
        except OSError:
            # It has closed its input, or has ended.
            self._input = None

    async def close_input(self) -> None:
        if self._tty:
            await self.write(b"\x04")
        elif self._input is not None:
            self._input.close()
            self._input = None

    async def resize(self, rows: int, columns: int) -> None:
        if self._tty and self._master >= 0:
            set_size(self._master, rows, columns)

    async def signal(self, name: str) -> None:
        self._signal(_signal_number(name))

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def aclose(self) -> None:
        if not self._ended.done():
            self._signal(signal.SIGHUP if self._tty else signal.SIGTERM)
            await asyncio.wait({self._ended}, timeout=TERM_SECONDS)
        if not self._ended.done():
            self._signal(signal.SIGKILL)
            await asyncio.wait({self._ended}, timeout=TERM_SECONDS)
        self._ended.cancel()
        for transport in self._transports:
            transport.close()
        self._transports.clear()
        if self._writing is not None and self._flow is not None and not self._flow.is_lost:
            # Whatever of it waits, nobody reads it any more.
            self._writing.abort()
        self._writing = self._input = None
        self._master = -1
        # The loop closes descriptors in its next turn.
        await asyncio.sleep(0)

    def _signal(self, number: int) -> None:
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _connect(self, output: Mapping[int, int], into: int) -> None:
        """Read from these descriptors, by stream, and write into the last one; they are this object's from now on."""
        for stream, descriptor in output.items():
            await self._read_from(stream, descriptor)
        if into >= 0:
            loop = asyncio.get_running_loop()
            file = open(into, "wb", buffering=0)  # noqa: SIM115, ASYNC230 - the transport closes it
            self._writing, self._flow = await loop.connect_write_pipe(_Input, file)
            self._input = asyncio.StreamWriter(self._writing, self._flow, None, loop)

    async def _read_from(self, stream: int, descriptor: int) -> None:
        reader = self._readers[stream] = asyncio.StreamReader(limit=PIECE_BYTES)
        file = open(descriptor, "rb", buffering=0)  # noqa: SIM115, ASYNC230 - the transport closes it
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: _Output(reader), file)
        self._transports.append(transport)
        if self._tty:
            self._master = descriptor


class _Input(asyncio.streams.FlowControlMixin):
    """The writing end of a command's standard input."""

    is_lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        super().connection_lost(exc)


class _Output(asyncio.StreamReaderProtocol):
    """The reading end of what a command writes."""

    def connection_lost(self, exc: Exception | None) -> None:
        # A terminal ends with an error (EIO), which would hide what was read before it.
        super().connection_lost(None)


async def start(pool: Pool, process: Identity, options: ExecOptions) -> Command:
    """Run a command beside the task whose process this is. Raises ExecutorError where it can't be run."""
    if options.user:
        raise ExecutorError("user: a command beside a plain process runs as the task's user")

    def launch() -> tuple[subprocess.Popen[bytes], dict[int, int], int]:
        return _launch(process, options)

    try:
        child, output, into = await _uninterrupted(pool, launch)
        command = Command(child, options.tty)
        try:
            await command._connect(output, into)
        except BaseException:
            await command.aclose()
            raise
    except OSError as error:
        raise ExecutorError(f"{options.command[0]!r} can't be run: {error.strerror or error}") from error
    return command


async def _uninterrupted(
    pool: Pool, launch: Callable[[], tuple[subprocess.Popen[bytes], dict[int, int], int]]
) -> tuple[subprocess.Popen[bytes], dict[int, int], int]:
    """Run it on a thread; where nobody waits any more, what it made is taken away again."""
    launching = asyncio.get_running_loop().run_in_executor(pool, launch)
    try:
        return await asyncio.shield(launching)
    except asyncio.CancelledError:
        launching.add_done_callback(_undo)
        raise


def _undo(launching: asyncio.Future[tuple[subprocess.Popen[bytes], dict[int, int], int]]) -> None:
    if launching.cancelled() or launching.exception() is not None:
        return
    child, output, into = launching.result()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for descriptor in {*output.values(), into} - {-1}:
        os.close(descriptor)


def _launch(
    process: Identity,
    options: ExecOptions,
) -> tuple[subprocess.Popen[bytes], dict[int, int], int]:
    """The process, what to read its streams from, and what to write its input into (-1: it has none)."""
    if not process.is_alive():
        raise ExecutorError("the task's process has ended")
    ours: list[int] = []
    theirs: list[int] = []
    try:
        if options.tty:
            master, slave = os.openpty()
            ours.append(master)
            theirs.append(slave)
            set_size(master, options.rows, options.columns)
            standard = (slave, slave, slave)
            output = {1: master}
            into = os.dup(master) if options.stdin else -1
            ours.extend([into] if into >= 0 else [])
        else:
            out, out_end = os.pipe()
            err, err_end = os.pipe()
            ours.extend([out, err])
            theirs.extend([out_end, err_end])
            output = {1: out, 2: err}
            into = -1
            if options.stdin:
                in_end, into = os.pipe()
                ours.append(into)
                theirs.append(in_end)
            else:
                in_end = os.open(os.devnull, os.O_RDONLY)
                theirs.append(in_end)
            standard = (in_end, out_end, err_end)
        report, report_end = os.pipe()
        ours.append(report)
        theirs.append(report_end)
        words = [str(report_end), str(process.pid), str(int(options.tty)), options.dir, str(len(options.env))]
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), *words, *options.env, *options.command],
            stdin=standard[0],
            stdout=standard[1],
            stderr=standard[2],
            env={},
            cwd="/",
            pass_fds=(report_end,),
            start_new_session=True,
        )
        while theirs:
            os.close(theirs.pop())
        failure = _report(report)
        os.close(report)
        ours.remove(report)
        if failure:
            child.wait()
            raise ExecutorError(failure)
        return child, output, into
    except BaseException:
        for descriptor in [*ours, *theirs]:
            os.close(descriptor)
        raise


def _report(report: int) -> str:
    """What the launcher says; nothing when the program runs."""
    if not select.select([report], [], [], START_SECONDS)[0]:
        return f"the command did not start in {START_SECONDS:g} s"
    return os.read(report, 4096).decode(errors="replace")


async def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a child of ours, without a thread."""
    with open(f"/proc/{process.pid}/stat", "rb") as file:  # noqa: ASYNC230 - no disk is behind it
        text = file.read()
    started = int(text[text.rindex(b")") + 2 :].split()[19])
    with open("/proc/sys/kernel/random/boot_id") as boot:  # noqa: ASYNC230 - as above
        identity = Identity(process.pid, started, boot.read().strip())
    while process.poll() is None:
        await wait_ended(identity)
        await asyncio.sleep(0)
    code = process.returncode
    return 128 - code if code < 0 else code


async def _pump(stream: int, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[int, bytes]]) -> None:
    """From a pipe to the queue; at its end an empty piece."""
    while True:
        try:
            data = await reader.read(PIECE_BYTES)
        except OSError:
            # A terminal that nobody has open any more.
            data = b""
        await pieces.put((stream, data))
        if not data:
            return


def set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _signal_number(name: str) -> int:
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise ExecutorError(f"{name!r} is not a signal") from None
