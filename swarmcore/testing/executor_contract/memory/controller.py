"""One task of the model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import ContainerStatus
from swarmcore.plugin.executor import (
    Controller,
    ExecOptions,
    ExecSession,
    ExecutorError,
    ExitError,
    LogLine,
    LogOptions,
    TaskPreparedError,
    TaskRejectedError,
    TaskStartedError,
    TaskUsage,
    TemporaryError,
)
from swarmcore.testing.executor_contract.memory.boxes import Box
from swarmcore.testing.executor_contract.memory.commands import KILLED, ModelCommand
from swarmcore.testing.executor_contract.program import (
    Program,
)

if TYPE_CHECKING:
    from swarmcore.testing.executor_contract.memory.executor import ModelExecutor

LATENCY_SECONDS: Final = 0.005


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
