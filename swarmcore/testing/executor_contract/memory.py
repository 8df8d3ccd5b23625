"""An engine that is a table in memory, and an executor for it that keeps to the whole contract.

The measure of the suite: it passes every check, and each of `mutants.py` spoils one thing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import ContainerStatus, NodeDescription
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    ExecOptions,
    ExecSession,
    Executor,
    ExecutorError,
    ExitError,
    HostInfo,
    LogLine,
    LogOptions,
    TaskPreparedError,
    TaskRejectedError,
    TaskStartedError,
    TaskUsage,
    TemporaryError,
)
from swarmcore.testing.executor_contract.memory_commands import ModelCommand
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
from swarmcore.testing.executor_contract.subject import Subject

RUNTIME: Final = "model"
LATENCY_SECONDS: Final = 0.005
KILLED: Final = 137


class _SignalledError(Exception):
    """The program is to run a signal's handler."""


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


class ModelController(Controller):
    """One task in one box."""

    def __init__(self, executor: ModelExecutor, task: Task, *, is_recovered: bool = False) -> None:
        self.executor = executor
        self.engine = executor.engine
        self.task = task
        self.is_recovered = is_recovered
        self.is_closed = False
        self._pending: set[asyncio.Future[None]] = set()

    # Life

    async def update(self, task: Task) -> None:
        self.task = task

    async def prepare(self) -> None:
        await self.ask()
        if self.box is not None:
            raise TaskPreparedError("prepared before")
        program = self.engine.programs.get(self.task.id, Program())
        box = self.engine.boxes[self.task.id] = Box(self.engine, self.task.id, program, self.executor)
        if program.scratch:
            box.volumes.add(new_id())
        self.handle = self.make_handle()
        await self.ask()

    def make_handle(self) -> bytes:
        return f"handle of {self.task.id}".encode()

    async def start(self) -> None:
        await self.ask()
        box = self.box
        if box is None:
            raise TaskRejectedError("no such container")
        if box.program.is_missing:
            raise TaskRejectedError("no such file or directory")
        if box.run:
            if not (box.is_running and box.has_check and not box.is_healthy):
                raise TaskStartedError("started before")
        else:
            box.start()
        await self.ask()
        if self.waits_for_health(box):
            await self.wait_healthy(box)

    def waits_for_health(self, box: Box) -> bool:
        return box.has_check

    async def wait_healthy(self, box: Box) -> None:
        while not box.is_healthy:
            if not box.is_running:
                self.raise_end(box)
                return
            if box.is_unhealthy:
                await self.stop_unhealthy(box)
            await self.wait_news()

    async def stop_unhealthy(self, box: Box) -> None:
        await self.shutdown()
        raise ExitError(1, "unhealthy container")

    async def wait(self) -> None:
        while True:
            box = self.box
            if box is None:
                raise TaskRejectedError("the container is gone")
            if not box.is_running:
                self.raise_end(box)
                return
            if self.is_unhealthy(box):
                await self.stop_unhealthy(box)
            await self.wait_news()

    def is_unhealthy(self, box: Box) -> bool:
        return box.is_unhealthy

    def raise_end(self, box: Box) -> None:
        if box.exit_code:
            raise ExitError(box.exit_code)

    async def shutdown(self) -> None:
        await self.ask()
        box = self.box
        if box is None or not box.is_running:
            return
        self.send_stop(box)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace(box)):
                await self.wait_ended(box)
        await self.kill()

    def send_stop(self, box: Box) -> None:
        box.signal((box.program.stop_signal or "SIGTERM").removeprefix("SIG"))

    def grace(self, box: Box) -> float:
        return box.program.grace

    async def terminate(self) -> None:
        await self.kill()

    async def kill(self) -> None:
        await self.ask()
        if self.box is not None:
            self.box.signal("KILL")

    async def remove(self) -> None:
        await self.ask()
        box = self.engine.boxes.pop(self.task.id, None)
        if box is not None:
            self.forget(box)
            self.engine.tell(self.task.id)
        await self.ask()

    def forget(self, box: Box) -> None:
        box.end(KILLED)

    async def aclose(self) -> None:
        self.is_closed = True
        self.end_pending()

    def end_pending(self) -> None:
        for news in self._pending:
            if not news.done():
                news.set_exception(TemporaryError("closed"))

    # Output and state

    async def container_status(self) -> ContainerStatus | None:
        await self.ask()
        return ContainerStatus(container_id=self.task.id) if self.box is not None else None

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        await self.ask()
        box = self.box
        if box is None:
            return
        lines = self.lines_of(box)
        given = len(lines)
        for line in self.selected(lines, options):
            yield line
        if not options.follow:
            for stream, data in box.rest.items():
                yield LogLine(stream=stream, timestamp_ns=self.engine.next_stamp(), data=data)
            return
        while True:
            is_over = not box.is_running or self.box is not box
            lines = self.lines_of(box)
            for line in self.followed(lines[given:], options):
                yield line
            given = len(lines)
            if is_over:
                return
            await self.wait_news()

    def lines_of(self, box: Box) -> list[LogLine]:
        return list(box.lines)

    def selected(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        """Of what there is, what is asked for."""
        since = options.since_ns or 0
        found = [line for line in self.followed(lines, options) if line.timestamp_ns >= since]
        return found if options.tail is None else found[len(found) - min(options.tail, len(found)) :]

    def followed(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        return [line for line in lines if line.stream in options.streams]

    # Beside it

    async def exec(self, options: ExecOptions) -> ExecSession:
        await self.ask()
        box = self.box
        if box is None or not box.is_running:
            raise ExecutorError("the task does not run")
        program = self.engine.programs[options.command[0]]
        if program.is_missing:
            raise ExecutorError("no such program")
        return self.make_command(box, program, options)

    def make_command(self, box: Box, program: Program, options: ExecOptions) -> ExecSession:
        return ModelCommand(box, program, options)

    async def usage(self) -> TaskUsage:
        await self.ask()
        box = self.box
        if box is None:
            raise ExecutorError("no such container")
        return self.usage_of(box)

    def usage_of(self, box: Box) -> TaskUsage:
        self.engine.asked += 1
        return TaskUsage(cpu_seconds=self.engine.asked * 0.01, memory_bytes=4096, pids=1)

    # Asking the engine

    @property
    def box(self) -> Box | None:
        return self.engine.boxes.get(self.task.id)

    async def ask(self) -> None:
        """A question takes time, and has no answer while the engine is away."""
        await asyncio.sleep(LATENCY_SECONDS)
        if not self.engine.is_up:
            raise TemporaryError("the engine is away")

    async def wait_ended(self, box: Box) -> None:
        while box.is_running:
            await self.wait_news()

    async def wait_news(self) -> None:
        """Return at the next news of the task. Raises TemporaryError when this or the executor is closed."""
        if self.is_closed or self.executor.is_closed:
            raise TemporaryError("closed")
        with self.engine.news(self.task.id) as news:
            self._pending.add(news)
            try:
                await news
            finally:
                self._pending.discard(news)


class ModelExecutor(Executor):
    """The executor of a model engine."""

    controller_kind: ClassVar[type[ModelController]] = ModelController

    def __init__(self, engine: ModelEngine) -> None:
        self.engine = engine
        self.controllers: list[ModelController] = []
        self.is_closed = False
        self.slots = asyncio.Semaphore(6)
        """For spoiled executors, as are the next two."""
        self.waiting = 0
        self.litter: list[asyncio.Task[None]] = []

    async def describe(self) -> NodeDescription:
        await self.ask()
        description = NodeDescription(hostname="model")
        description.platform.os, description.platform.architecture = "linux", "x86_64"
        description.resources.nano_cpus, description.resources.memory_bytes = 1_000_000_000, 1 << 30
        return description

    async def configure(self, node: Node) -> None:
        """A model has nothing to configure."""

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        if task.spec.generic.kind != RUNTIME:
            raise TaskRejectedError(f"task.generic.kind {task.spec.generic.kind!r} is not {RUNTIME!r}")
        return self.made(self.controller_kind(self, task))

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        await self.ask()
        box = self.engine.boxes.get(task.id)
        if not self.knows(box, handle):
            return None
        controller = self.made(self.controller_kind(self, task, is_recovered=True))
        controller.handle = handle
        return controller

    def knows(self, box: Box | None, handle: bytes | None) -> bool:
        return box is not None

    async def aclose(self) -> None:
        self.is_closed = True
        for controller in self.controllers:
            controller.end_pending()

    def made(self, controller: ModelController) -> ModelController:
        self.controllers.append(controller)
        return controller

    async def ask(self) -> None:
        await asyncio.sleep(LATENCY_SECONDS)
        if not self.engine.is_up:
            raise TemporaryError("the engine is away")


class ModelFactory:
    """Offers executors for one model engine."""

    name = RUNTIME
    runtimes = frozenset({RUNTIME})
    automatic = 0

    def __init__(self, engine: ModelEngine, kind: type[ModelExecutor] = ModelExecutor) -> None:
        self.engine = engine
        self.kind = kind

    async def available(self, host: HostInfo) -> bool:
        return self.engine.is_up

    async def create(self, host: HostInfo) -> Executor:
        return self.kind(self.engine)


class ModelSubject(Subject):
    """A model engine of its own."""

    patience: ClassVar[float] = 30.0
    log_resolution: ClassVar[float] = 0.001

    def __init__(self, kind: type[ModelExecutor] = ModelExecutor, factory: type[ModelFactory] = ModelFactory) -> None:
        self._engine = ModelEngine()
        self._factory = factory(self._engine, kind)

    @property
    def factory(self) -> ModelFactory:
        return self._factory

    @property
    def host(self) -> HostInfo:
        return HostInfo(state_dir="/nonexistent")

    def make_task(self, program: Program) -> Task:
        task = Task(id=new_id())
        task.spec.generic.kind = RUNTIME
        self._engine.programs[task.id] = program
        return task

    def command_of(self, program: Program) -> Sequence[str]:
        id = new_id()
        self._engine.programs[id] = program
        return (id,)

    async def running(self, task: Task) -> str | None:
        box = self._engine.boxes.get(task.id) or self._engine.orphans.get(task.id)
        return f"run {box.run}" if box is not None and box.is_running else None

    async def printed(self, task: Task) -> bytes:
        box = self._engine.boxes.get(task.id)
        return b"".join(line.data for line in box.lines if line.stream == 1) if box is not None else b""

    async def leftovers(self) -> set[str]:
        return self._engine.leftovers()

    async def clean_up(self) -> None:
        await self.start_engine()
        self._engine.clear()
        await asyncio.sleep(0)

    async def stop_engine(self) -> None:
        self._engine.is_up = False
        self._engine.tell_all()

    async def start_engine(self) -> None:
        self._engine.is_up = True
        self._engine.tell_all()

    async def start_and_die(self, tasks: Sequence[Task]) -> Mapping[str, bytes | None]:
        """In memory nothing can be killed: an executor is dropped as it stands."""
        executor = await self._factory.create(self.host)
        handles = {}
        for task in tasks:
            controller = await executor.controller(task, Dependencies())
            await controller.prepare()
            await controller.start()
            handles[task.id] = controller.handle
        self._engine.dead.append(executor)
        return handles
