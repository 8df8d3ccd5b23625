"""A fake executor, scripted by tests: what each call of its controllers does, and what was called."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import ContainerStatus, NodeDescription
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    Executor,
    ExitError,
    LogLine,
    LogOptions,
)

Act = Exception | asyncio.Event | Callable[[], Awaitable[None]] | None
"""What a call does: raise, wait for the event, run the function, or just return."""


async def _perform(act: Act) -> None:
    if isinstance(act, Exception):
        raise act
    if isinstance(act, asyncio.Event):
        await act.wait()
    elif act is not None:
        await act()


@dataclass(slots=True)
class Script:
    """Acts by method name, one for each call; the last one stays. A method without acts just returns.

    `wait` without acts returns when the fake is told that the task ended.
    """

    acts: dict[str, list[Act]] = field(default_factory=dict)

    def next(self, method: str) -> Act:
        acts = self.acts.get(method)
        if not acts:
            return None
        return acts.pop(0) if len(acts) > 1 else acts[0]


@dataclass(slots=True)
class Fake:
    """What the fake engine has of one task; it outlives controllers and executors."""

    is_prepared: bool = False
    is_running: bool = False
    exit_code: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, code: int) -> None:
        self.is_running = False
        if self.exit_code is None:
            self.exit_code = code
        self.changed.set()


class FakeEngine:
    """Tasks by id. Give the same one to a second executor to play an agent that starts again."""

    def __init__(self) -> None:
        self.tasks: dict[str, Fake] = {}

    def end(self, task_id: str, code: int = 0) -> None:
        """What the task ran ends by itself."""
        self.tasks[task_id].end(code)

    @property
    def running(self) -> set[str]:
        return {id for id, fake in self.tasks.items() if fake.is_running}


class FakeController(Controller):
    """Does what its script says, and otherwise what a good engine would do."""

    def __init__(self, executor: FakeExecutor, task: Task, dependencies: Dependencies) -> None:
        self.task = task
        self.dependencies = dependencies
        self.calls: list[str] = []
        self.updates: list[Task] = []
        self.is_closed = False
        self._executor = executor
        self._engine = executor.engine
        self._script = executor.script_of(task)

    async def update(self, task: Task) -> None:
        await self._do("update")
        self.task = task
        self.updates.append(task)

    async def prepare(self) -> None:
        await self._do("prepare")
        self._fake().is_prepared = True
        self.handle = f"handle of {self.task.id}".encode()

    async def start(self) -> None:
        await self._do("start")
        self._fake().is_running = True

    async def wait(self) -> None:
        await self._do("wait")
        fake = self._fake()
        while fake.exit_code is None:
            fake.changed.clear()
            await fake.changed.wait()
        if fake.exit_code:
            raise ExitError(fake.exit_code)

    async def shutdown(self) -> None:
        await self._do("shutdown")
        self._fake().end(143)

    async def terminate(self) -> None:
        await self._do("terminate")
        self._fake().end(137)

    async def remove(self) -> None:
        await self._do("remove")
        self._engine.tasks.pop(self.task.id, None)

    async def aclose(self) -> None:
        self.calls.append("aclose")
        self.is_closed = True

    async def container_status(self) -> ContainerStatus | None:
        fake = self._engine.tasks.get(self.task.id)
        if fake is None:
            return None
        return ContainerStatus(container_id=f"c-{self.task.id}", exit_code=fake.exit_code or 0)

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        for number, data in enumerate(self._executor.lines.get(self.task.id, ())):
            yield LogLine(stream=1, timestamp_ns=number, data=data)
        if options.follow:
            await asyncio.Event().wait()

    def _fake(self) -> Fake:
        return self._engine.tasks.setdefault(self.task.id, Fake())

    async def _do(self, method: str) -> None:
        self.calls.append(method)
        await _perform(self._script.next(method))


class FakeExecutor(Executor):
    """Runs nothing, and remembers everything."""

    def __init__(self, engine: FakeEngine | None = None, description: NodeDescription | None = None) -> None:
        self.engine = engine if engine is not None else FakeEngine()
        self.description = description if description is not None else NodeDescription(hostname="fake")
        self.script = Script()
        """Of the executor's own methods, and of tasks that have none of their own."""
        self.scripts: dict[str, Script] = defaultdict(Script)
        """By task id."""
        self.lines: dict[str, list[bytes]] = {}
        """What tasks print."""
        self.controllers: dict[str, FakeController] = {}
        """The newest of each task."""
        self.recovered: list[tuple[str, bytes | None]] = []
        self.nodes: list[Node] = []
        self.is_closed = False

    def script_of(self, task: Task) -> Script:
        return self.scripts.get(task.id, self.script)

    async def describe(self) -> NodeDescription:
        await _perform(self.script.next("describe"))
        return self.description

    async def configure(self, node: Node) -> None:
        self.nodes.append(node)
        await _perform(self.script.next("configure"))

    async def controller(self, task: Task, dependencies: Dependencies) -> FakeController:
        await _perform(self.script_of(task).next("controller"))
        return self._made(FakeController(self, task, dependencies))

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> FakeController | None:
        self.recovered.append((task.id, handle))
        await _perform(self.script_of(task).next("recover"))
        if task.id not in self.engine.tasks:
            return None
        controller = self._made(FakeController(self, task, dependencies))
        controller.handle = handle
        return controller

    async def aclose(self) -> None:
        self.is_closed = True

    def _made(self, controller: FakeController) -> FakeController:
        self.controllers[controller.task.id] = controller
        return controller
