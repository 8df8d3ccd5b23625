"""Commands beside the model's boxes: programs that are interpreted step by step, as the boxes' own are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from swarmcore.plugin.executor import ExecOptions, ExecSession
from swarmcore.testing.executor_contract.program import (
    CopyLines,
    Exit,
    Pause,
    Print,
    PrintVariable,
    Program,
    RunOn,
    Step,
)

KILLED = 137


class Place(Protocol):
    """What a command runs in."""

    commands: list[ModelCommand]


class ModelCommand(ExecSession):
    """One command in one box."""

    def __init__(self, box: Place, program: Program, options: ExecOptions) -> None:
        self.box = box
        self.program = program
        self.options = options
        self._pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        if not options.stdin:
            self._input.put_nowait(None)
        self._signal: asyncio.Future[str] | None = None
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run())
        box.commands.append(self)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (piece := await self._pieces.get()) is not None:
            yield piece
        self._pieces.put_nowait(None)

    async def write(self, data: bytes) -> None:
        self._input.put_nowait(data)

    async def close_input(self) -> None:
        self._input.put_nowait(None)

    async def resize(self, rows: int, columns: int) -> None:
        """A model's terminal has no size."""

    async def signal(self, name: str) -> None:
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(name.removeprefix("SIG"))

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    async def aclose(self) -> None:
        self.end(KILLED)

    @property
    def runs(self) -> bool:
        return not self._code.done()

    def end(self, code: int) -> None:
        """It ends with this code, by itself or not."""
        if self._code.done():
            return
        self._code.set_result(code)
        self._pieces.put_nowait(None)
        if self._running is not asyncio.current_task():
            self._running.cancel()

    def print(self, stream: int, data: bytes) -> None:
        self._pieces.put_nowait((1 if self.options.tty else stream, data))

    async def _run(self) -> None:
        steps: list[Step] = list(self.program.steps)
        while steps:
            step = steps.pop(0)
            if isinstance(step, Exit):
                self.end(step.code)
                return
            if isinstance(step, Print):
                self.print(step.stream, step.data * step.times)
            elif isinstance(step, PrintVariable):
                self.print(1, self.variable(step.name) + b"\n")
            elif isinstance(step, CopyLines):
                await self._copy()
            elif isinstance(step, Pause | RunOn):
                self._signal = asyncio.get_running_loop().create_future()
                steps[:0] = self.program.on_signal.get(await self._signal, (step,))
        self.end(0)

    def variable(self, name: str) -> bytes:
        pairs = (entry.partition("=") for entry in self.options.env)
        return next((value.encode() for key, _, value in pairs if key == name), b"")

    async def _copy(self) -> None:
        while (data := await self._input.get()) is not None:
            self.print(1, data)
