"""The engine, a table in memory, and what it has of each task: a box that runs a program."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from swarmcore.plugin.executor import (
    LogLine,
)
from swarmcore.testing.executor_contract.memory.commands import KILLED, ModelCommand
from swarmcore.testing.executor_contract.program import (
    NO_HEALTH_TEST,
    BecomeHealthy,
    BecomeSick,
    Count,
    Exit,
    Pause,
    Print,
    Program,
    RunOn,
    Step,
)


@dataclass(eq=False)
class Box:
    """What the engine has of one task."""

    engine: ModelEngine
    task_id: str
    program: Program
    maker: object
    """The executor that asked for it."""
    volumes: set[str] = field(default_factory=set)
    run: int = 0
    """Its number among all runs of the engine; 0 before it was started."""
    exit_code: int | None = None
    lines: list[LogLine] = field(default_factory=list)
    rest: dict[int, bytes] = field(default_factory=dict)
    """What stands after the last end of line, by stream."""
    is_healthy: bool = False
    is_sick: bool = False
    """The program said so, whether or not anybody asks."""
    failures: int = 0
    """Health checks that failed one after the other."""
    commands: list[ModelCommand] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _signal: asyncio.Future[str] | None = None

    @property
    def is_running(self) -> bool:
        return self.run > 0 and self.exit_code is None

    @property
    def has_check(self) -> bool:
        health = self.program.health
        return health is not None and health.test != NO_HEALTH_TEST

    @property
    def is_unhealthy(self) -> bool:
        health = self.program.health
        return health is not None and self.has_check and self.failures >= health.retries

    def start(self) -> None:
        self.engine.runs += 1
        self.run, self.exit_code = self.engine.runs, None
        self.is_healthy = self.is_sick = False
        self.failures = 0
        self._tasks = [asyncio.create_task(self._run_program())]
        if self.has_check:
            self._tasks.append(asyncio.create_task(self._check_health()))

    def signal(self, name: str) -> None:
        """As to the first process of a container: without a handler nothing happens, except for KILL."""
        if not self.is_running:
            return
        if name == "KILL":
            self.end(KILLED)
        elif self.program.on_signal.get(name) and self._signal is not None and not self._signal.done():
            self._signal.set_result(name)

    def end(self, code: int) -> None:
        if self.is_running:
            self.exit_code = code
            for stream, data in sorted(self.rest.items()):
                self._add(stream, data)
            self.rest.clear()
            self.end_commands()
        self.stop()
        self.engine.tell(self.task_id)

    def stop(self) -> None:
        own = asyncio.current_task()
        for each in self._tasks:
            if each is not own:
                each.cancel()

    def end_commands(self) -> None:
        for command in self.commands:
            command.end(KILLED)

    async def _run_program(self) -> None:
        steps: list[Step] = list(self.program.steps)
        while steps:
            step = steps[0]
            if isinstance(step, Exit):
                self.end(step.code)
                return
            if isinstance(step, Pause | RunOn):
                seconds = step.seconds if isinstance(step, Pause) else None
                name = await self._signal_within(seconds)
                if name is not None:
                    handler = self.program.on_signal[name]
                    steps[: 1 if isinstance(step, Pause) else 0] = handler
                    continue
            elif isinstance(step, Print):
                self.print(step.stream, step.data * step.times)
            elif isinstance(step, Count):
                self.print(step.stream, b"".join(b"%d\n" % number for number in range(1, step.last + 1)))
            else:
                self.is_sick = isinstance(step, BecomeSick)
                self.is_healthy = isinstance(step, BecomeHealthy)
                self.engine.tell(self.task_id)
            steps.pop(0)
        self.end(0)

    async def _signal_within(self, seconds: float | None) -> str | None:
        self._signal = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                return await self._signal
        except TimeoutError:
            return None

    async def _check_health(self) -> None:
        health = self.program.health
        assert health is not None
        while True:
            await asyncio.sleep(health.interval)
            self.failures = 0 if self.is_healthy else self.failures + 1
            self.engine.tell(self.task_id)

    def print(self, stream: int, data: bytes) -> None:
        *lines, rest = (self.rest.pop(stream, b"") + data).split(b"\n")
        for line in lines:
            self._add(stream, line + b"\n")
        if rest:
            self.rest[stream] = rest
        self.engine.tell(self.task_id)

    def _add(self, stream: int, data: bytes) -> None:
        self.lines.append(LogLine(stream=stream, timestamp_ns=self.engine.next_stamp(), data=data))


class ModelEngine:
    """All boxes, and who waits for news of them."""

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self.orphans: dict[str, Box] = {}
        """Running on with nobody to answer for them: only spoiled executors make them."""
        self.lost_volumes: set[str] = set()
        """That a removal left behind: only spoiled executors do."""
        self.removed: set[str] = set()
        self.programs: dict[str, Program] = {}
        self.is_up = True
        self.runs = 0
        self.asked = 0
        """How often it told what a task uses."""
        self.early: set[str] = set()
        """Tasks that run before they were started: only spoiled executors make them."""
        self.dead: list[object] = []
        """Executors whose process was killed."""
        self._stamp = 0
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def next_stamp(self) -> int:
        self._stamp = max(self._stamp + 1, time.time_ns())
        return self._stamp

    def tell(self, task_id: str) -> None:
        for news in self._waiting.get(task_id, ()):
            if not news.done():
                news.set_result(None)

    def tell_all(self) -> None:
        for task_id in self._waiting:
            self.tell(task_id)

    @contextlib.contextmanager
    def news(self, task_id: str) -> Iterator[asyncio.Future[None]]:
        """Done at the next news."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, set()).add(news)
        try:
            yield news
        finally:
            self._waiting[task_id].discard(news)

    def leftovers(self) -> set[str]:
        found = {f"container {id}" for id in self.boxes} | {f"process {id}" for id in self.orphans}
        return found | {f"volume {volume}" for volume in self.volumes}

    @property
    def volumes(self) -> set[str]:
        return {volume for box in self.boxes.values() for volume in box.volumes} | self.lost_volumes

    def clear(self) -> None:
        for box in [*self.boxes.values(), *self.orphans.values()]:
            box.stop()
            box.end_commands()
        self.boxes.clear()
        self.orphans.clear()
        self.lost_volumes.clear()
