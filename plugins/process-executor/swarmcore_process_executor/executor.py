"""The executor: what the machine offers, and a controller for each task."""

from __future__ import annotations

import os
import platform
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin.executor import Controller, Dependencies, Executor
from swarmcore_process_executor.controller import ProcessController
from swarmcore_process_executor.record import Noter

THREADS = 4


class ProcessExecutor(Executor):
    """The processes of this machine."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "tasks"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="process-executor")
        self._noter = Noter(self._pool)

    async def describe(self) -> NodeDescription:
        description = NodeDescription(hostname=socket.gethostname())
        description.platform.os = platform.system().lower()
        description.platform.architecture = platform.machine()
        description.resources.nano_cpus = len(os.sched_getaffinity(0)) * 1_000_000_000
        description.resources.memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return description

    async def configure(self, node: Node) -> None:
        """Nothing of a node object concerns plain processes."""

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        return ProcessController(self._pool, self._noter, self._folder / task.id, task)

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        controller = ProcessController(self._pool, self._noter, self._folder / task.id, task)
        return controller if controller.is_there() else None

    async def aclose(self) -> None:
        await self._noter.aclose()
        self._pool.shutdown(wait=False)
