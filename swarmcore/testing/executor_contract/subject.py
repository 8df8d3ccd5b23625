"""What the suite has to be told of an executor under test: the one class that its author writes."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import Executor, ExecutorFactory, HostInfo
from swarmcore.testing.executor_contract.program import Program

CHILD_SECONDS = 60.0


class Subject(ABC):
    """One engine, or one machine, and how to use it. Made anew for each check; cheap to make.

    What the suite asks here it never asks the executor: these methods are its second opinion. They look only at what
    belongs to tasks made by `make_task`, so that a suite can run where others work too.
    """

    patience: ClassVar[float] = 10.0
    """Seconds within which what shall happen soon has happened."""
    log_resolution: ClassVar[float] = 0.001
    """Seconds by which the time of a printed line may be wrong."""

    @property
    @abstractmethod
    def factory(self) -> ExecutorFactory:
        """Makes the executor under test."""

    @property
    @abstractmethod
    def host(self) -> HostInfo:
        """What `factory.create` is given: the same at each call, so that an executor finds its predecessor's state."""

    @abstractmethod
    def make_task(self, program: Program) -> Task:
        """A task that runs `program.command`, with its stop signal, grace, health check and volume, and an id of its
        own. Without a network, secrets or limits.
        """

    @abstractmethod
    async def running(self, task: Task) -> str | None:
        """What runs of the task now, named so that it would have another name if it had been started again (such as
        `<container id> <time of start>`); None where nothing runs.
        """

    @abstractmethod
    async def printed(self, task: Task) -> bytes:
        """What it printed to stdout so far; empty where nothing was made."""

    @abstractmethod
    async def leftovers(self) -> set[str]:
        """All that there is of tasks: containers, volumes, networks, processes, folders; each as `kind name`."""

    @abstractmethod
    async def clean_up(self) -> None:
        """Remove all that `leftovers` tells, by force. Called after each check, whatever came of it."""

    async def make_executor(self) -> Executor:
        """An executor on this engine and its state; called several times. Whoever calls closes it."""
        return await self.factory.create(self.host)

    # For ExecContract

    def command_of(self, program: Program) -> Sequence[str]:
        """The command line that does what the program says, beside a task. Override it where there is no shell."""
        return program.command

    # For EngineContract

    async def stop_engine(self) -> None:
        """Make the engine unreachable, at once; return when it is. What it runs may end with it, or go on."""
        raise NotImplementedError("this subject has no engine that stops: do not subclass EngineContract")

    async def start_engine(self) -> None:  # noqa: B027 - nothing to do where nothing stops
        """Make the engine answer again; return when it does. Nothing happens where it does already."""

    # For RecoveryContract

    async def start_and_die(self, tasks: Sequence[Task]) -> Mapping[str, bytes | None]:
        """Start tasks by an executor in a process of its own, and kill that; return the tasks' handles.

        The process imports the class of `factory` and calls it without arguments. Override it where that can't be.
        """
        kind = type(self.factory)
        host = self.host
        order = {
            "factory": [kind.__module__, kind.__qualname__],
            "host": {"state_dir": host.state_dir, "engine_addr": host.engine_addr},
            "tasks": [base64.b64encode(task.SerializeToString()).decode() for task in tasks],
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "swarmcore.testing.executor_contract.victim",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None and child.stdout is not None
        try:
            async with asyncio.timeout(CHILD_SECONDS):
                child.stdin.write(json.dumps(order).encode() + b"\n")
                await child.stdin.drain()
                answer = await child.stdout.readline()
        finally:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        assert answer, "the executor's process ended before its tasks were started; see its stderr"
        handles: dict[str, str | None] = json.loads(answer)
        return {id: base64.b64decode(text) if text is not None else None for id, text in handles.items()}
