"""The executor: what the engine offers, and a controller for each task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin import abilities, containers
from swarmcore.plugin.engine_calls import EngineError
from swarmcore.plugin.executor import Controller, Dependencies, Executor, HostInfo, TemporaryError
from swarmcore.plugin.task_files import MemoryFolder
from swarmcore_docker_executor import spec
from swarmcore_docker_executor.answers import Answers
from swarmcore_docker_executor.controller import DockerController, Parts
from swarmcore_docker_executor.engine import Engine
from swarmcore_docker_executor.host import Host
from swarmcore_docker_executor.images import Images

_V2_KINDS = {"volumedriver": "Volume", "networkdriver": "Network", "logdriver": "Log"}


class DockerExecutor(Executor):
    """One Docker Engine."""

    def __init__(self, engine: Engine, host: HostInfo) -> None:
        self._engine = engine
        self._node: Node | None = None
        self._parts = Parts(
            engine=engine,
            events=engine.events(),
            answers=Answers(engine.address),
            images=Images(engine),
            memory=MemoryFolder(Path(host.state_dir) / "secrets"),
            node=lambda: self._node,
        )

    @classmethod
    async def connect(cls, host: HostInfo, address: str) -> DockerExecutor:
        return cls(await Engine.connect(address), host)

    async def describe(self) -> NodeDescription:
        try:
            info = await self._engine.call("GET", "/info")
            plugins = await self._engine.call("GET", "/plugins")
        except EngineError as error:
            raise TemporaryError(str(error)) from error
        return node_description(info, plugins or [])

    async def configure(self, node: Node) -> None:
        """Remember what templates may name."""
        self._node = node

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        spec.refuse_unsupported(task, self._engine.api_number, self._engine.host)
        if self._node is not None:
            # A field that no template can name is refused before anything is made or fetched.
            containers.expanded(task, self._node)
        return DockerController(self._parts, task, dependencies)

    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        controller = DockerController(self._parts, task, dependencies)
        controller.handle = handle
        return controller if await controller.attach() else None

    async def aclose(self) -> None:
        self._parts.images.close()
        self._parts.answers.close()
        await self._parts.events.aclose()
        await self._engine.aclose()


def node_description(info: dict[str, Any], plugins: list[dict[str, Any]]) -> NodeDescription:
    """What the engine says of its host, in SwarmKit's terms."""
    description = NodeDescription(hostname=info["Name"])
    description.platform.architecture = info["Architecture"]
    description.platform.os = info["OSType"]
    description.resources.nano_cpus = int(info["NCPU"]) * 1_000_000_000
    description.resources.memory_bytes = int(info["MemTotal"])
    description.engine.engine_version = info["ServerVersion"]
    for label in info.get("Labels") or ():
        key, _, value = label.partition("=")
        description.engine.labels[key] = value
    for kind, name in sorted(set(_engine_plugins(info)) | set(_managed_plugins(plugins))):
        description.engine.plugins.add(type=kind, name=name)
    abilities.state(description, Host.of(info).abilities)
    return description


def _engine_plugins(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    offered = info.get("Plugins") or {}
    for kind in ("Volume", "Network", "Log"):
        for name in offered.get(kind) or ():
            yield kind, str(name)


def _managed_plugins(plugins: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for plugin in plugins:
        if not plugin.get("Enabled"):
            continue
        for kind in (plugin.get("Config", {}).get("Interface", {}).get("Types")) or ():
            prefix, _, rest = str(kind).partition(".")
            name = rest.partition("/")[0]
            if prefix == "docker" and name:
                yield _V2_KINDS.get(name, name), str(plugin["Name"])
