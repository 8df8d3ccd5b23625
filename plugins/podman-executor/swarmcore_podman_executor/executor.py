"""The executor: what the engine offers, and a controller for each task."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin import abilities, containers
from swarmcore.plugin.engine_calls import EngineError
from swarmcore.plugin.executor import Controller, Dependencies, Executor, HostInfo, TemporaryError
from swarmcore.plugin.task_files import MemoryFolder
from swarmcore_podman_executor import spec
from swarmcore_podman_executor.controller import Parts, PodmanController
from swarmcore_podman_executor.engine import Engine
from swarmcore_podman_executor.host import Host
from swarmcore_podman_executor.images import Images

PLUGIN_KINDS = {"volume": "Volume", "network": "Network", "log": "Log"}


class PodmanExecutor(Executor):
    """One Podman engine."""

    def __init__(self, engine: Engine, host: HostInfo) -> None:
        self._engine = engine
        self._parts = Parts(engine, engine.events(), Images(engine), memory_folder(host.state_dir))

    @classmethod
    async def connect(cls, host: HostInfo, address: str) -> PodmanExecutor:
        return cls(await Engine.connect(address), host)

    async def describe(self) -> NodeDescription:
        try:
            return node_description(await self._engine.call("GET", "/info"))
        except EngineError as error:
            raise TemporaryError(str(error)) from error

    async def configure(self, node: Node) -> None:
        """Remember what templates may name."""
        self._parts.node = node

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        spec.refuse_unsupported(task, self._engine.host)
        if self._parts.node is not None:
            # A field that no template can name is refused before anything is made or fetched.
            containers.expanded(task, self._parts.node)
        return PodmanController(self._parts, task, dependencies)

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        controller = PodmanController(self._parts, task, dependencies)
        controller.handle = handle
        return controller if await controller.attach() else None

    async def aclose(self) -> None:
        self._parts.images.close()
        await self._parts.events.aclose()
        await self._engine.aclose()


def memory_folder(state_dir: str) -> MemoryFolder:
    """Where files of tasks are; only root can mount a tmpfs, and everybody else's session has one."""
    if os.geteuid() == 0:
        return MemoryFolder(Path(state_dir) / "secrets")
    session = os.environ.get("XDG_RUNTIME_DIR") or "/dev/shm"
    name = hashlib.sha256(f"{os.geteuid()} {state_dir}".encode()).hexdigest()[:16]
    return MemoryFolder(Path(session) / f"swarmcore-{name}", is_shared=True)


def node_description(info: dict[str, Any]) -> NodeDescription:
    """What the engine says of its host, in SwarmKit's terms."""
    host = info["host"]
    description = NodeDescription(hostname=host["hostname"])
    description.platform.architecture = host["arch"]
    description.platform.os = host["os"]
    description.resources.nano_cpus = int(host["cpus"]) * 1_000_000_000
    description.resources.memory_bytes = int(host["memTotal"])
    description.engine.engine_version = info["version"]["Version"]
    found = {
        (PLUGIN_KINDS[kind], str(name))
        for kind, names in (info.get("plugins") or {}).items()
        if kind in PLUGIN_KINDS
        for name in names or ()
    }
    # Tasks ask for Docker's name of a driver; nodes without it would not get them.
    found |= {("Log", name) for name, own in spec.LOG_DRIVERS.items() if ("Log", own) in found}
    for kind, name in sorted(found):
        description.engine.plugins.add(type=kind, name=name)
    abilities.state(description, _abilities(Host.of(info)))
    return description


def _abilities(host: Host) -> frozenset[str]:
    """A rootless engine has the cgroup controllers that its user was given."""
    missing: set[str] = set()
    for controller, needing in (
        ("cpu", {"limits"}),
        ("memory", {"limits", "swap", "swappiness", "stats"}),
        ("pids", {"pids-limit"}),
    ):
        if not host.may_use(controller):
            missing |= needing
    for word, is_there in (
        ("swappiness", not host.cgroup_v2),
        ("selinux", host.has_selinux),
        ("seccomp", host.has_seccomp),
    ):
        if not is_there:
            missing.add(word)
    return abilities.CONTAINERS - missing
