"""The subject for process-executor: what runs and what is left is read from /proc and from its folders."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.process_pb2 import ProcessSpec
from swarmcore.plugin.executor import ExecutorFactory, HostInfo
from swarmcore.testing.executor_contract.program import Program
from swarmcore.testing.executor_contract.subject import Subject

MARKER = "SWARMCORE_TASK_ID"
CLEAN_UP_SECONDS = 5.0


class ProcessSubject(Subject):
    """The processes of this machine."""

    patience: ClassVar[float] = 20.0
    log_resolution: ClassVar[float] = 1.0

    def __init__(self, factory: ExecutorFactory, state_dir: str | Path) -> None:
        self._factory = factory
        self._host = HostInfo(state_dir=str(state_dir))
        self._made: list[str] = []

    @property
    def factory(self) -> ExecutorFactory:
        return self._factory

    @property
    def host(self) -> HostInfo:
        return self._host

    def make_task(self, program: Program) -> Task:
        task = Task(id=new_id(), service_id=new_id(), slot=1)
        self._made.append(task.id)
        task.service_annotations.name = "contract"
        task.spec.generic.kind = "process"
        spec = ProcessSpec(command=program.command, stop_signal=program.stop_signal, stop_grace_seconds=program.grace)
        if program.health is not None:
            kind, *command = program.health.test
            spec.health.command.extend(["sh", "-c", *command] if kind == "CMD-SHELL" else [])
            spec.health.interval_seconds = program.health.interval
            spec.health.retries = program.health.retries
        task.spec.generic.payload.Pack(spec)
        return task

    async def running(self, task: Task) -> str | None:
        """The oldest of its processes, and when it began."""
        runs = sorted((_started(pid), pid) for pid in _marked({task.id}))
        return f"process {runs[0][1]} of {runs[0][0]}" if runs else None

    async def printed(self, task: Task) -> bytes:
        with suppress(FileNotFoundError):
            return (self._folder / task.id / "stdout").read_bytes()
        return b""

    async def leftovers(self) -> set[str]:
        folders = self._folder.iterdir() if self._folder.exists() else ()
        return {
            *(f"folder {path.name}" for path in folders),
            *(f"process {pid}" for pid in _marked(set(self._made)) | self._below()),
            *(f"group {path}" for path in _groups(self._made)),
        }

    async def clean_up(self) -> None:
        deadline = time.monotonic() + CLEAN_UP_SECONDS
        while time.monotonic() < deadline:
            # Again and again: what is killed may just have made another.
            running, groups = _marked(set(self._made)) | self._below(), _groups(self._made)
            if not running and not groups:
                break
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for group in groups:
                # Busy until what was killed is gone.
                with suppress(OSError):
                    group.rmdir()
            await asyncio.sleep(0.01)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return Path(self._host.state_dir) / "tasks"

    def _below(self) -> set[int]:
        """Processes whose working folder is below that of a task: supervisors carry no mark."""
        found = set()
        for pid in _pids():
            with suppress(OSError):
                if Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self._folder):
                    found.add(pid)
        return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _marked(ids: set[str]) -> set[int]:
    marks = {f"{MARKER}={id}".encode() for id in ids}
    found = set()
    for pid in _pids():
        with suppress(OSError):
            if marks & set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                found.add(pid)
    return found


def _groups(ids: Iterable[str]) -> set[Path]:
    """Control groups that are named after one of these tasks, in every hierarchy."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split()[4] for line in file if line.partition(" - ")[2].startswith("cgroup")]
    return {path for mount in mounts for id in ids if (path := Path(mount) / "swarmcore" / id).is_dir()}


def _started(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(text[text.rindex(b")") + 2 :].split()[19])
