"""An executor whose engine was not there when the node started, while the node's others run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin.executor import Controller, Dependencies, Executor, TemporaryError


class LateExecutor(Executor):
    """Tries to make the executor whenever it is asked to describe itself; until then the node has none for its tasks.

    Tasks of the last run wait for it: what runs on the engine can't be told without.
    """

    def __init__(self, create: Callable[[], Awaitable[Executor]], reason: str) -> None:
        """`create` raises ConfigurationError; `reason` is what it raised at first."""
        self._create = create
        self.reason = reason
        self._executor: Executor | None = None
        self._creating: asyncio.Task[Executor] | None = None
        self._node: Node | None = None
        self._is_closed = False

    async def describe(self) -> NodeDescription:
        if self._executor is None:
            await self._try_again()
        return await self._made().describe()

    async def _try_again(self) -> None:
        """Raises TemporaryError. Who is cancelled leaves the attempt to the next who asks: it may be half connected."""
        if self._creating is None:
            self._creating = asyncio.create_task(self._attempt(), name="late executor")
        creating = self._creating
        await asyncio.wait([creating])
        if self._creating is creating:
            self._creating = None
        if creating.cancelled() or self._is_closed:
            raise TemporaryError("the node ends")
        if (error := creating.exception()) is not None:
            self.reason = str(error)
            raise TemporaryError(self.reason) from error

    async def _attempt(self) -> Executor:
        executor = await self._create()
        try:
            if self._node is not None:
                await executor.configure(self._node)
        except BaseException:
            await executor.aclose()
            raise
        self._executor = executor
        return executor

    def _made(self) -> Executor:
        if self._executor is None:
            raise TemporaryError(self.reason)
        return self._executor

    async def configure(self, node: Node) -> None:
        self._node = node
        if self._executor is not None:
            await self._executor.configure(node)

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        return await self._made().controller(task, dependencies)

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        return await self._made().recover(task, handle, dependencies)

    async def aclose(self) -> None:
        self._is_closed = True
        if self._creating is not None:
            self._creating.cancel()
            await asyncio.wait([self._creating])
        if self._executor is not None:
            await self._executor.aclose()
