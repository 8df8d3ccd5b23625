"""Which process is which: a pid with its start time names one for as long as the machine runs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

POLL_SECONDS = 0.5
MARKER = "SWARMCORE_TASK_ID"
"""In the environment of every process of a task, so that one that leaves the process group is found all the same."""
SWEEP_SECONDS = 5.0
CENSUS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Identity:
    """One process: `started` is its start in clock ticks since the boot of `boot`."""

    pid: int
    started: int
    boot: str

    def is_alive(self) -> bool:
        """Whether the process runs; one that has ended and waits for its parent does not."""
        state = _state(self.pid)
        return state is not None and state[1] == self.started and state[0] not in "ZX" and self.boot == boot_id()


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _state(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process, None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, blanks and parentheses included.
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


async def wait_ended(process: Identity) -> None:
    """Return when the process has ended; it need not be a child of ours."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:
        # A kernel without pidfd, or a limit on open files.
        while True:
            if not process.is_alive():
                return
            await asyncio.sleep(POLL_SECONDS)
    try:
        # Only now: the descriptor holds on to whatever has the pid.
        if not process.is_alive():
            return
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, _resolve, ended)
        try:
            await ended
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)


def _resolve(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def reap(process: Identity) -> None:
    """Let the kernel forget a child of ours that has ended. Another that has its number is its owner's to wait for."""
    state = _state(process.pid)
    if state is None or state[1] != process.started:
        return
    try:
        os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        pass


def signal_group(leader: Identity, number: int) -> bool:
    """Signal the group that `leader` leads; return whether it still does."""
    if not leader.is_alive():
        return False
    try:
        os.killpg(leader.pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_marked(task_id: str, others: Callable[[], Iterable[int]] = tuple) -> int:
    """Kill every process that has the task's marker, and those they make meanwhile; wait until they are gone.

    `others` are further ones, found in another way: one that takes off its environment takes off the marker. Blocks,
    for no more than SWEEP_SECONDS. Returns how many there were.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + SWEEP_SECONDS
    pause = 0.001
    while found := {*_marked(task_id), *others()}:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            break
        # SIGKILL is not done at once; and what was just being made must not slip through.
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return len(killed)


def _marked(task_id: str) -> Iterator[int]:
    marker = f"{MARKER}={task_id}".encode()
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == own:
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if marker not in file.read().split(b"\0"):
                    continue
        except OSError:
            continue
        yield int(entry)


class Census:
    """Which processes carry the marker of which task; counted at most twice a second for whoever asks, and once more
    for a task that was not there yet.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = -CENSUS_SECONDS
        self._pids: dict[str, list[int]] = {}
        self._missing: set[str] = set()
        """Tasks that had no process when they were looked for since `_at`."""

    def of(self, task_id: str) -> list[int]:
        """Blocks for as long as a look at each process takes."""
        with self._lock:
            if time.monotonic() - self._at >= CENSUS_SECONDS:
                self._pids = _by_task()
                self._at = time.monotonic()
                self._missing.clear()
            elif task_id not in self._pids and task_id not in self._missing:
                # It may have begun since the others were counted.
                self._pids = _by_task()
            if task_id not in self._pids:
                self._missing.add(task_id)
            return self._pids.get(task_id, [])


def _by_task() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    marker = f"{MARKER}=".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                environ = file.read()
        except OSError:
            continue
        if marker in environ:
            for each in environ.split(b"\0"):
                if each.startswith(marker):
                    found.setdefault(os.fsdecode(each[len(marker) :]), []).append(int(entry))
                    break
    return found
