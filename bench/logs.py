"""`service logs -f` under load: tasks of one worker that print at a fixed rate, and every line looked for."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from swarmcore.testing.cluster import Swarmd, program, swarmd, wait_until
from swarmcore.testing.ports import free_port

TASKS: Final = 100
LINES_PER_SECOND: Final = 10_000
TICK_SECONDS: Final = 0.1
START_SECONDS: Final = 90.0
CATCH_UP_SECONDS: Final = 120.0
LINE: Final = "the quick brown fox jumps over the lazy dog and goes on, for about a hundred bytes in all"

_TASK: Final = """
import os, sys, time
go, seconds, count, text = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
while not os.path.exists(go):
    time.sleep(0.05)
number, due = 0, time.monotonic()
end = due + seconds
while due < end:
    os.write(1, b"".join(b"%d %s\\n" % (each, text) for each in range(number, number + count)))
    number += count
    due += 0.1
    time.sleep(max(0, due - time.monotonic()))
os.write(1, b"printed %d\\n" % number)
time.sleep(1e6)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What became of the lines. Cores are CPU seconds a second."""

    printed: int
    lost: int
    """Lines that did not come, came twice or in the wrong order."""
    agent_cores: float
    manager_cores: float
    reader_cores: float
    behind_seconds: float
    """From the last line printed to the last one shown."""


def follow(seconds: float) -> Followed:
    """A manager, a worker with all the tasks, and `swarmctl service logs -f` into a file."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        address = f"127.0.0.1:{free_port()}"
        remote = ("--listen-remote-api", address, "--advertise-remote-api", address)
        manager = stack.enter_context(swarmd(folder / "manager", "--executor", "process", *remote))
        ctl = manager.swarmctl
        token = re.findall(r"Worker\s*: (SWMTKN-\S+)", ctl("cluster", "inspect"))[0]
        join = ("--join-addr", address, "--join-token", token)
        ctl("node", "drain", ctl.table("node", "ls")[0]["ID"])
        worker = stack.enter_context(swarmd(folder / "worker", "--executor", "process", *join))
        go = folder / "go"
        count = max(1, round(LINES_PER_SECOND / TASKS * TICK_SECONDS))
        words = ["-S", "-c", _TASK, str(go), str(seconds), str(count), LINE]
        arguments = [part for word in words for part in ("--args", word)]
        create = ("service", "create", "--name", "talk", "--runtime", "process", "--replicas", str(TASKS))
        ctl(*create, "--command", sys.executable, *arguments)
        wait_until(lambda: _all_run(manager), seconds=START_SECONDS)
        out = folder / "out"
        with _reader(manager, out) as reader:
            found = _measure(manager, worker, reader, go, out, seconds)
        # Processes outlive their agent.
        ctl("service", "remove", "talk")
        wait_until(lambda: _nothing_runs(worker), seconds=START_SECONDS)
        return found


def _all_run(manager: Swarmd) -> None:
    (row,) = manager.swarmctl.table("service", "ls")
    assert row["Replicas"] == f"{TASKS}/{TASKS}", row["Replicas"]


def _nothing_runs(worker: Swarmd) -> None:
    left = list((worker.state_dir / "executors" / "process" / "tasks").iterdir())
    assert not left, f"{len(left)} tasks are left"


@contextlib.contextmanager
def _reader(manager: Swarmd, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "SWARM_SOCKET": str(manager.socket)}
    with out.open("wb") as file:
        process = subprocess.Popen([program("swarmctl"), "service", "logs", "-f", "talk"], env=environment, stdout=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _measure(
    manager: Swarmd, worker: Swarmd, reader: subprocess.Popen[bytes], go: Path, out: Path, seconds: float
) -> Followed:
    processes = [psutil.Process(pid) for pid in (worker.pid, manager.pid, reader.pid)]
    time.sleep(2.0)
    before, start = [_cpu(each) for each in processes], time.monotonic()
    go.touch()
    time.sleep(seconds)

    def all_shown() -> None:
        shown = _count(out, b"| printed ")
        assert shown == TASKS, f"{shown} of {TASKS} tasks were followed to their end"

    wait_until(all_shown, seconds=CATCH_UP_SECONDS)
    took = time.monotonic() - start
    agent, managing, reading = [(_cpu(each) - then) / took for each, then in zip(processes, before, strict=True)]
    printed, lost = _check(out.read_text())
    return Followed(
        printed=printed,
        lost=lost,
        agent_cores=agent,
        manager_cores=managing,
        reader_cores=reading,
        behind_seconds=max(0.0, took - seconds),
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _count(out: Path, words: bytes) -> int:
    with out.open("rb") as file:
        file.seek(max(0, out.stat().st_size - 1_000_000))
        return file.read().count(words)


def _check(text: str) -> tuple[int, int]:
    """Lines printed, and lines that are not where they should be."""
    due: dict[str, int] = defaultdict(int)
    printed = lost = 0
    for line in text.splitlines():
        title, _, words = line.partition(" | ")
        name = title.strip()
        first, _, rest = words.partition(" ")
        if first == "printed":
            printed += int(rest)
            lost += int(rest) - due[name]
        elif int(first) == due[name] and rest == LINE:
            due[name] += 1
        else:
            lost += 1
    return printed, lost
