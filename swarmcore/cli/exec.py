"""`swarmctl task exec`: a command beside a task, with the streams, the terminal and the signals of this process."""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from swarmcore.api.exec_pb2 import ExecInput, ExecOutput, ExecStart, WindowSize
from swarmcore.api.exec_pb2_grpc import TaskAccessStub
from swarmcore.cli.command_line import CliError
from swarmcore.cli.connection import Manager

FAILED = 125
"""Exit code where the command never ran, or it is not known how it ended: as of Docker."""
PIECE_BYTES = 32 * 1024
WAITING = 16


class ExecFailedError(CliError):
    """The command did not run, or its end is not known."""

    exit_code = FAILED


def run(
    to: Manager,
    task_id: str,
    command: Sequence[str],
    *,
    env: Sequence[str],
    directory: str,
    user: str,
    with_input: bool,
    with_terminal: bool,
) -> int:
    """Run the command and return its exit code. Raises ExecFailedError."""
    if with_terminal and with_input and not sys.stdin.isatty():
        raise ExecFailedError("standard input is not a terminal: leave out --tty (-t)")
    start = ExecStart(
        task_id=task_id,
        command=command,
        env=env,
        dir=directory,
        user=user,
        tty=with_terminal,
        stdin=with_input,
        said_user=_user(),
    )
    if with_terminal:
        start.size.CopyFrom(_size())
        if not any(entry.startswith("TERM=") for entry in env) and os.environ.get("TERM"):
            start.env.append(f"TERM={os.environ['TERM']}")
    return _Terminal(to, start).run()


def _user() -> str:
    """Who this is, as far as the environment tells: sudo keeps the name of whoever called it."""
    for name in ("SUDO_USER", "LOGNAME", "USER"):
        if os.environ.get(name):
            return os.environ[name][:64]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _size() -> WindowSize:
    for stream in (0, 1, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(stream)
            return WindowSize(rows=size.lines, columns=size.columns)
    return WindowSize(rows=24, columns=80)


class _Terminal:
    """One command, between this process's streams and the manager."""

    def __init__(self, to: Manager, start: ExecStart) -> None:
        self._to = to
        self._start = start
        self._sent: queue.Queue[ExecInput | None] = queue.Queue(WAITING)
        self._interrupts = 0
        self._is_begun = False
        self._code: int | None = None

    def run(self) -> int:
        self._sent.put(ExecInput(start=self._start))
        call = TaskAccessStub(self._to.channel).Exec(self._requests())
        try:
            with self._signals(call), self._raw():
                for output in call:
                    self._take(output)
        except grpc.RpcError as error:
            if self._interrupts > 1:
                raise KeyboardInterrupt from None
            raise ExecFailedError(self._why(self._to.failure(error).message)) from None
        finally:
            call.cancel()
            with contextlib.suppress(queue.Full):
                self._sent.put_nowait(None)
        if self._code is None:
            raise ExecFailedError("the manager did not say how the command ended: look at the audit log")
        return self._code

    def _why(self, message: str) -> str:
        """Of a command that ran, most of all that nobody knows how it ended."""
        return f"the command was lost: {message}" if self._is_begun and "command" not in message else message

    def _requests(self) -> Iterator[ExecInput]:
        while (message := self._sent.get()) is not None:
            yield message

    def _take(self, output: ExecOutput) -> None:
        what = output.WhichOneof("what")
        if what == "started":
            self._is_begun = True
            if self._start.stdin:
                threading.Thread(target=self._read_input, name="stdin", daemon=True).start()
        elif what == "stdout":
            _write(1, output.stdout)
        elif what == "stderr":
            _write(2, output.stderr)
        elif what == "end":
            if output.end.error:
                raise ExecFailedError(output.end.error)
            self._code = output.end.code

    def _read_input(self) -> None:
        try:
            while data := os.read(0, PIECE_BYTES):
                self._sent.put(ExecInput(stdin=data))
        except OSError:
            pass
        self._sent.put(ExecInput(stdin_closed=True))

    @contextlib.contextmanager
    def _signals(self, call: Any) -> Iterator[None]:
        """The size of the terminal goes along; ctrl-C goes to the command, and the second one ends the call."""

        def resized(*_: object) -> None:
            with contextlib.suppress(queue.Full):
                self._sent.put_nowait(ExecInput(resize=_size()))

        def interrupted(*_: object) -> None:
            self._interrupts += 1
            try:
                if self._interrupts == 1:
                    self._sent.put_nowait(ExecInput(signal="SIGINT"))
                    return
            except queue.Full:
                self._interrupts += 1
            call.cancel()

        before = [(signal.SIGINT, signal.signal(signal.SIGINT, interrupted))]
        if self._start.tty:
            before.append((signal.SIGWINCH, signal.signal(signal.SIGWINCH, resized)))
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _raw(self) -> Iterator[None]:
        """Every key goes to the command as it is, ctrl-C too."""
        if not (self._start.tty and self._start.stdin):
            yield
            return
        settings = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, settings)


def _write(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExecFailedError(f"what the command writes can't be passed on: {error.strerror}") from None
