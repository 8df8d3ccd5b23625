"""What every check stands on: an executor of its own, calls with deadlines, and nothing left when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    Executor,
    ExitError,
    LogLine,
    LogOptions,
    LogSource,
    TemporaryError,
)
from swarmcore.testing.executor_contract.program import READY, Program
from swarmcore.testing.executor_contract.subject import Subject

T = TypeVar("T")

NOTHING: Final = Dependencies()
POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Made:
    """One task and its controller."""

    task: Task
    controller: Controller


class Case:
    """One executor, and the tasks that a check makes with it."""

    def __init__(self, subject: Subject, executor: Executor) -> None:
        self.subject = subject
        self.executor = executor
        self._executors = [executor]
        self._controllers: list[Controller] = []

    # Executors

    async def another_executor(self) -> Executor:
        """As after a restart of the agent: another object on the same engine and state."""
        executor = await self.soon(self.subject.make_executor(), "making an executor")
        self._executors.append(executor)
        return executor

    async def aclose(self) -> None:
        """Close what the check has not closed. What fails here is not what the check is about."""
        closable: list[Controller | Executor] = [*self._controllers, *self._executors]
        for each in closable:
            with suppress(Exception):
                await self.soon(each.aclose(), "aclose")

    # Tasks on their way

    async def make(self, program: Program, *, executor: Executor | None = None) -> Made:
        return await self.of(self.subject.make_task(program), executor=executor)

    async def of(self, task: Task, *, executor: Executor | None = None) -> Made:
        """A controller for this task."""
        maker = executor if executor is not None else self.executor
        controller = await self.soon(maker.controller(task, NOTHING), "controller")
        self._controllers.append(controller)
        return Made(task, controller)

    async def prepared(self, program: Program) -> Made:
        made = await self.make(program)
        await self.step(made.controller.prepare, "prepare")
        return made

    async def started(self, program: Program) -> Made:
        """Started; a program that says when it is ready is that."""
        made = await self.prepared(program)
        await self.step(made.controller.start, "start")
        await self.ready(made.task, program)
        return made

    async def ready(self, task: Task, program: Program) -> None:
        if READY in program.steps:
            await self.until(lambda: self.has_printed(task, READY.data), "the task says that it is ready")

    async def removed(self, made: Made) -> None:
        await self.step(made.controller.remove, "remove")

    async def recovered(self, executor: Executor, task: Task, handle: bytes | None) -> Made | None:
        controller = await self.soon(executor.recover(task, handle, NOTHING), "recover")
        if controller is None:
            return None
        self._controllers.append(controller)
        return Made(task, controller)

    async def found(self, executor: Executor, task: Task, handle: bytes | None) -> Made:
        """Recovered, or the check fails."""
        made = await self.recovered(executor, task, handle)
        assert made is not None, "recover says that nothing is left of a task that was not removed"
        return made

    # Calls

    async def step(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """Make a call as the core does: what fails for now is tried again, while patience lasts."""
        deadline = asyncio.get_running_loop().time() + self.subject.patience
        while True:
            try:
                return await self.soon(call(), what)
            except TemporaryError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise AssertionError(f"{what} goes on failing for now: {error}") from error
            await asyncio.sleep(POLL_SECONDS)

    async def again(self, call: Callable[[], Awaitable[None]], what: str, done: type[Exception]) -> None:
        """A step that was done before: it returns, or says so."""
        with suppress(done):
            await self.step(call, what)

    async def soon(self, call: Awaitable[T], what: str, *, seconds: float | None = None) -> T:
        """Await with patience; `what` is said where it has no end."""
        patience = seconds if seconds is not None else self.subject.patience
        scope = asyncio.timeout(patience)
        try:
            async with scope:
                return await call
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise AssertionError(f"{what} did not return within {patience:g} s") from error

    async def cancelled(self, call: asyncio.Task[Any], what: str) -> None:
        """Cancel a call and see it end, whatever it says."""
        call.cancel()
        _, pending = await asyncio.wait([call], timeout=self.subject.patience)
        assert not pending, f"{what} goes on after it was cancelled"
        if not call.cancelled():
            call.exception()

    async def until(self, fact: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask again and again until it is so."""
        deadline = asyncio.get_running_loop().time() + self.subject.patience
        while not await fact():
            assert asyncio.get_running_loop().time() < deadline, f"waited in vain until {what}"
            await asyncio.sleep(POLL_SECONDS)

    async def end_of(self, made: Made) -> int:
        """The exit code that `wait` tells."""
        try:
            await self.step(made.controller.wait, "wait")
        except ExitError as error:
            return error.code
        return 0

    # What the subject says

    async def has_printed(self, task: Task, data: bytes) -> bool:
        return data in await self.subject.printed(task)

    async def run_of(self, task: Task) -> str:
        """Which run of the task there is now."""
        run = await self.subject.running(task)
        assert run is not None, "nothing runs of the task, and it was not told to stop"
        return run

    # What the task printed

    async def logs(self, made: Made, options: LogOptions | None = None) -> list[LogLine]:
        """All lines, to the end of the stream."""
        stream = log_source(made.controller).logs(options if options is not None else LogOptions())
        lines: list[LogLine] = []

        async def read() -> None:
            async for line in stream:
                lines.append(line)

        try:
            await self.soon(read(), "the stream of a task's output")
        finally:
            await close_stream(stream)
        return lines


def log_source(controller: Controller) -> LogSource:
    assert isinstance(controller, LogSource), "the controller has no logs"
    return controller


async def close_stream(stream: AsyncIterator[LogLine]) -> None:
    """End a stream as its reader does."""
    close: Callable[[], Awaitable[None]] | None = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def text_of(lines: list[LogLine], stream: int | None = None) -> bytes:
    """The output, put together again."""
    return b"".join(line.data for line in lines if stream is None or line.stream == stream)


def begin(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A call that goes on while the check does something else."""
    return asyncio.get_running_loop().create_task(call)


@asynccontextmanager
async def case_of(subject: Subject) -> AsyncIterator[Case]:
    """An executor for one check; afterwards it is closed, and what the check's tasks left is removed by force."""
    executor = await subject.make_executor()
    case = Case(subject, executor)
    try:
        yield case
    finally:
        await case.aclose()
        await subject.clean_up()
