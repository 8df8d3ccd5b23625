"""A cluster of real processes: `swarmd` on this machine or on a host of its own, and `swarmctl` against its socket.

Nothing is shared with the code under test but the command line. Every wait polls a fact up to a deadline.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from swarmcore.testing.engines import Host

T = TypeVar("T")

POLL_SECONDS = 0.1
START_SECONDS = 30.0
STOP_SECONDS = 15.0
READY_LINE = "node is ready"


def wait_until(check: Callable[[], T], *, seconds: float = 20.0) -> T:
    """Call `check` until it raises no AssertionError, and return what it returns.

    After `seconds` its last complaint becomes the failure, so the asserts inside `check` say what is waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"still so after {seconds:g} s: {error}") from error
        time.sleep(POLL_SECONDS)


def program(name: str) -> str:
    """The installed script that stands beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


class SwarmctlError(RuntimeError):
    """`swarmctl` said no; the text is what it printed on stderr."""


@dataclass(frozen=True, slots=True)
class Swarmctl:
    """`swarmctl` against one control socket."""

    socket: Path

    def __call__(self, *arguments: str, stdin: bytes | None = None, timeout: float = 30.0) -> str:
        """Run it and return what it printed; raises SwarmctlError where it fails."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise SwarmctlError(done.stderr.decode().strip())
        return done.stdout.decode()

    def run(
        self, *arguments: str, stdin: bytes | None = None, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it, whatever comes of it."""
        return subprocess.run(
            [program("swarmctl"), *arguments],
            env={**os.environ, "SWARM_SOCKET": str(self.socket)},
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def table(self, *arguments: str) -> list[dict[str, str]]:
        """Run it and read the last table that it prints: one dictionary for each row, by column."""
        return read_table(self(*arguments))


def read_table(text: str) -> list[dict[str, str]]:
    """The last table in what `swarmctl` printed, whose columns begin where the dashes under their titles begin."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if number and re.fullmatch(r"-+(\s+-+)*\s*", line)]
    if not rules:
        raise AssertionError(f"no table in: {text!r}")
    rule = rules[-1]
    starts = [match.start() for match in re.finditer(r"-+", lines[rule])]
    ends = [*starts[1:], None]
    columns = [lines[rule - 1][start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return [
        dict(zip(columns, (line[start:end].strip() for start, end in zip(starts, ends, strict=True)), strict=True))
        for line in lines[rule + 1 :]
        if line.strip()
    ]


@dataclass(slots=True)
class Swarmd:
    """One `swarmd` process, which can be killed and started again on the same folder."""

    folder: Path
    flags: Sequence[str] = ()
    host: Host | None = None
    """Where it runs; None: on this machine."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _starts_before: int = field(default=0, init=False)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def socket(self) -> Path:
        return self.folder / "swarm.sock"

    @property
    def log_file(self) -> Path:
        return self.folder / "swarmd.log"

    @property
    def log(self) -> str:
        """All that it and its predecessors on this folder logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def swarmctl(self) -> Swarmctl:
        return Swarmctl(self.socket)

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    @property
    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process; does not wait for it."""
        assert not self.is_running, "started already"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            program("swarmd"),
            *("-d", str(self.state_dir)),
            *("--listen-control-api", str(self.socket)),
            *self.flags,
        ]
        if self.host is not None:
            command = self.host.command(*command)
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def wait_ready(self, *, seconds: float = START_SECONDS) -> None:
        """Return when this process has said that its node is ready."""
        self.wait_says(READY_LINE, times=self._starts_before + 1, seconds=seconds)

    def wait_says(self, text: str, *, times: int = 1, seconds: float = START_SECONDS) -> None:
        """Return when `text` stands in the log."""

        def said() -> bool:
            if self.log.count(text) >= times:
                return True
            if not self.is_running:
                raise RuntimeError(f"swarmd ended; its log:\n{self.log[-3000:]}")
            raise AssertionError(f"swarmd has not said {text!r}; its log:\n{self.log[-3000:]}")

        wait_until(said, seconds=seconds)

    def wait_end(self, *, seconds: float = START_SECONDS) -> int:
        """Return the exit code once it has ended by itself."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"swarmd did not end in {seconds:g} s; its log:\n{self.log[-3000:]}") from None

    def kill(self) -> None:
        """SIGKILL: no last words."""
        assert self.process is not None
        self._starts_before = self.log.count(READY_LINE)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM; returns the exit code, and fails where it does not end in time."""
        assert self.process is not None
        if not self.is_running:
            return self.process.returncode
        self._starts_before = self.log.count(READY_LINE)
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            raise AssertionError(f"swarmd did not stop in {STOP_SECONDS:g} s; its log:\n{self.log[-3000:]}") from None


@contextlib.contextmanager
def swarmd(folder: Path, *flags: str, host: Host | None = None, ready: bool = True) -> Iterator[Swarmd]:
    """A running `swarmd`, stopped afterwards. `ready=False` does not wait for it."""
    node = Swarmd(folder, flags, host)
    node.start()
    try:
        if ready:
            node.wait_ready()
        yield node
    finally:
        if node.is_running:
            node.stop()


def engine_flags(host: Host) -> tuple[str, ...]:
    """The flag that makes a host's own engine run the tasks of its `swarmd`."""
    assert host.engine is not None, f"{host.name} has no engine"
    return ("--engine-addr", host.engine.address)
