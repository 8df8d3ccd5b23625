"""Samples of what tasks on this node use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from swarmcore.agent.steps import text_of
from swarmcore.agent.worker import Worker
from swarmcore.api.exec_pb2 import NodeStats, TaskStats
from swarmcore.plugin.executor import TaskUsage, UsageSource

USAGE_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 1.0
AT_ONCE: Final = 8
_SAME: Final = (
    "memory_bytes",
    "memory_limit_bytes",
    "network_received_bytes",
    "network_sent_bytes",
    "block_read_bytes",
    "block_written_bytes",
    "pids",
)


def stats_of(
    task_id: str, node_id: str, usage: TaskUsage, seconds: float | None, before: TaskUsage | None
) -> TaskStats:
    """What is told of one task. `seconds` lie between `before` and this. Pure."""
    stats = TaskStats(task_id=task_id, node_id=node_id)
    for name in _SAME:
        value = getattr(usage, name)
        if value is not None:
            setattr(stats, name, max(0, int(value)))
    if before is not None and seconds and usage.cpu_seconds is not None and before.cpu_seconds is not None:
        stats.cpu_percent = max(0.0, 100 * (usage.cpu_seconds - before.cpu_seconds) / seconds)
    return stats


class Sampler:
    """Some tasks of this node, sampled again and again."""

    def __init__(self, worker: Worker, node_id: str, task_ids: Sequence[str]) -> None:
        self._worker = worker
        self._node_id = node_id
        self._task_ids = task_ids
        self._before: dict[str, tuple[float, TaskUsage]] = {}
        self._warned: set[str] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def first(self) -> NodeStats:
        """A sample that knows the CPU time of about a second."""
        unsent = await self.next()
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
        sample = await self.next()
        sample.warnings.extend(unsent.warnings)
        return sample

    async def next(self) -> NodeStats:
        """What the tasks use now. Tasks that have ended are left out."""
        message = NodeStats()
        usages = await asyncio.gather(*(self._usage(id) for id in self._task_ids))
        for task_id, found in zip(self._task_ids, usages, strict=True):
            if isinstance(found, str):
                if found not in self._warned:
                    self._warned.add(found)
                    message.warnings.append(found)
            elif found is not None:
                at, usage = found
                earlier = self._before.get(task_id)
                seconds = at - earlier[0] if earlier is not None else None
                stats = stats_of(task_id, self._node_id, usage, seconds, earlier[1] if earlier is not None else None)
                stats.timestamp.GetCurrentTime()
                message.stats.append(stats)
                self._before[task_id] = found
        return message

    async def _usage(self, task_id: str) -> tuple[float, TaskUsage] | str | None:
        """When, and how much; or why that is not known; None where the task is gone."""
        manager = self._worker.managers.get(task_id)
        if manager is None or manager.is_removed:
            return None
        source = manager.controller
        if source is None:
            return None
        if not isinstance(source, UsageSource):
            return f"task {task_id}: its executor does not tell what tasks use"
        async with self._turns:
            try:
                async with asyncio.timeout(USAGE_SECONDS):
                    usage = await source.usage()
            except TimeoutError:
                return f"task {task_id}: its executor did not answer in {USAGE_SECONDS:g} s"
            except Exception as error:  # noqa: BLE001 - the border: an executor's fault costs this sample
                return f"task {task_id}: {text_of(error)}"
        return time.monotonic(), usage
