"""What the managers hear of the tasks: the latest status of each, many in one call, never a lower state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.errors import PermissionDeniedError

log = logging.getLogger("swarmcore.agent")

MAX_BATCH: Final = 1000
MAX_BATCH_BYTES: Final = 1024 * 1024

Report = tuple[str, TaskStatus]
Send = Callable[[Sequence[Report]], Awaitable[None]]
"""Delivers reports. Raises PermissionDeniedError when one of them is refused, other errors when the session is over."""


class Reporter:
    """Reports that wait for a session. At most one for each task of the node, so it is bounded by what is assigned."""

    def __init__(self) -> None:
        self._pending: dict[str, TaskStatus] = {}
        self._states: dict[str, TaskState.ValueType] = {}
        """The highest state reported of each task."""
        self._wake = asyncio.Event()

    def put(self, task_id: str, status: TaskStatus) -> None:
        """Report soon. What is lower than was reported before is dropped; a newer report replaces one that waits."""
        known = self._states.get(task_id)
        if known is not None and status.state < known:
            return
        self._states[task_id] = status.state
        self._pending[task_id] = status
        self._wake.set()

    def repeat(self, statuses: Iterable[Report]) -> None:
        """Report all of these, known or not: a new session begins."""
        for task_id, status in statuses:
            self.put(task_id, status)

    def forget(self, task_id: str) -> None:
        """The task is no longer assigned to this node: nobody asks for it."""
        self._pending.pop(task_id, None)
        self._states.pop(task_id, None)

    @property
    def has_pending(self) -> bool:
        return bool(self._pending)

    async def run(self, send: Send) -> None:
        """Send what waits and what comes, at once when idle, in batches while a call is under way.

        Ends with what `send` raises; what was not delivered waits for the next session then.
        """
        while True:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
            await self._deliver(self._next_batch(), send)

    def _next_batch(self) -> list[Report]:
        batch: list[Report] = []
        size = 0
        for task_id, status in self._pending.items():
            size += status.ByteSize() + len(task_id) + 16
            if batch and (size > MAX_BATCH_BYTES or len(batch) == MAX_BATCH):
                break
            batch.append((task_id, status))
        return batch

    async def _deliver(self, batch: list[Report], send: Send) -> None:
        try:
            await send(batch)
        except PermissionDeniedError as error:
            # One report that is refused spoils the call for all: find it by halves.
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._deliver(batch[:middle], send)
                await self._deliver(batch[middle:], send)
                return
            log.warning("the managers refuse the status of task %s: %s", batch[0][0], error)
        for task_id, status in batch:
            if self._pending.get(task_id) is status:
                del self._pending[task_id]
