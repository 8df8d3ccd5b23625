"""The executor: what the machine offers, and a controller for each task."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import WeakSet

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin import abilities
from swarmcore.plugin.executor import Controller, Dependencies, Executor
from swarmcore_process_executor.cgroups import Cgroups
from swarmcore_process_executor.controller import ProcessController
from swarmcore_process_executor.record import Noter

THREADS = 4
ABILITIES = frozenset({"logs", "exec", "stats", "healthcheck", "host-ports", "ulimits"})
"""`spec.py` refuses what is not among them, or among those that control groups add."""


class ProcessExecutor(Executor):
    """The processes of this machine."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "tasks"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="process-executor")
        self._noter = Noter(self._pool)
        self._cgroups = Cgroups.find()
        self._cgroups.sweep(path.name for path in self._folder.iterdir())
        self._controllers: WeakSet[ProcessController] = WeakSet()
        """Those whose pending calls end when this is closed."""

    async def describe(self) -> NodeDescription:
        description = NodeDescription(hostname=socket.gethostname())
        description.platform.os = platform.system().lower()
        description.platform.architecture = platform.machine()
        description.resources.nano_cpus = len(os.sched_getaffinity(0)) * 1_000_000_000
        description.resources.memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        abilities.state(description, ABILITIES.union(self._of_cgroups()))
        return description

    def _of_cgroups(self) -> Iterator[str]:
        if "cpu" in self._cgroups.places:
            yield "limits"  # Memory has an rlimit where it has no group.
        if "pids" in self._cgroups.places:
            yield "pids-limit"

    async def configure(self, node: Node) -> None:
        """Nothing of a node object concerns plain processes."""

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        return self._made(task)

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        controller = self._made(task)
        return controller if controller.is_there() else None

    def _made(self, task: Task) -> ProcessController:
        controller = ProcessController(self._pool, self._noter, self._folder / task.id, task, self._cgroups)
        self._controllers.add(controller)
        return controller

    async def aclose(self) -> None:
        for controller in list(self._controllers):
            await controller.aclose()
        await self._noter.aclose()
        self._pool.shutdown(wait=False)
