"""What the node tells the managers of itself: its executors' descriptions as one."""

from __future__ import annotations

import asyncio
import logging
import platform
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from swarmcore.agent.steps import text_of
from swarmcore.api.types_pb2 import GenericResource, NodeDescription, NodeTLSInfo
from swarmcore.plugin.abilities import PLUGIN_TYPE
from swarmcore.plugin.executor import Executor

log = logging.getLogger("swarmcore.agent")

EXECUTOR_PLUGIN: Final = "swarmcore/executor"
"""Type of the engine plugins by which a node names the runtimes that it has executors for."""
NO_RUNTIME: Final = "none"
"""Named by a node without executors: one that names nothing would count as a stock engine."""
DESCRIBE_SECONDS: Final = 15.0


def merge(
    described: Mapping[str, NodeDescription],
    *,
    hostname: str,
    generic: Sequence[GenericResource],
    tls_info: NodeTLSInfo,
) -> NodeDescription:
    """One description from those of the executors, by runtime. Pure.

    Host name, platform and resources are the first one's, since all run on the same machine.
    """
    merged = NodeDescription()
    for description in described.values():
        merged.CopyFrom(description)
        break
    plugins = {(EXECUTOR_PLUGIN, runtime) for runtime in described} or {(EXECUTOR_PLUGIN, NO_RUNTIME)}
    labels: dict[str, str] = {}
    for runtime, description in described.items():
        plugins.update(_plugins(runtime, description))
        for key, value in description.engine.labels.items():
            labels.setdefault(key, value)
        merged.engine.engine_version = merged.engine.engine_version or description.engine.engine_version
    merged.engine.labels.update(labels)
    del merged.engine.plugins[:]
    for kind, name in sorted(plugins):
        merged.engine.plugins.add(type=kind, name=name)
    if hostname:
        merged.hostname = hostname
    elif not merged.hostname:
        merged.hostname = socket.gethostname()
    if not merged.HasField("platform"):
        merged.platform.os = platform.system().lower()
        merged.platform.architecture = platform.machine()
    if generic:
        del merged.resources.generic[:]
        merged.resources.generic.extend(generic)
    if tls_info.ByteSize():
        merged.tls_info.CopyFrom(tls_info)
    return merged


def _plugins(runtime: str, description: NodeDescription) -> Iterator[tuple[str, str]]:
    """The executor's engine plugins; its abilities with the runtime that they are for."""
    for plugin in description.engine.plugins:
        name = f"{runtime}:{plugin.name}" if plugin.type == PLUGIN_TYPE else plugin.name
        yield plugin.type, name


class Describer:
    """Asks the executors, and remembers what each said last: an engine that is away is still this node's engine."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        *,
        hostname: str,
        generic: Sequence[GenericResource],
        tls_info: Callable[[], NodeTLSInfo],
        on_return: Callable[[], None],
        seconds: float = DESCRIBE_SECONDS,
    ) -> None:
        """`on_return` is called when an executor answers again."""
        self._executors = executors
        self._hostname = hostname
        self._generic = generic
        self._tls_info = tls_info
        self._on_return = on_return
        self._seconds = seconds
        self._described: dict[str, NodeDescription] = {}
        self._away: set[str] = set()

    @property
    def is_known(self) -> bool:
        """Whether any executor has answered yet, or there is none."""
        return bool(self._described) or not self._executors

    @property
    def is_away(self) -> bool:
        """Whether an executor did not answer the last time."""
        return bool(self._away)

    async def describe(self) -> NodeDescription:
        """Ask all executors. One that fails is logged once, and its last description stands. Never raises."""
        by_executor: dict[int, list[str]] = {}
        for runtime, executor in self._executors.items():
            by_executor.setdefault(id(executor), []).append(runtime)
        answers = await asyncio.gather(*(self._ask(runtimes) for runtimes in by_executor.values()))
        if any(answers):
            self._on_return()
        return self.current()

    def current(self) -> NodeDescription:
        """What is known now, by what the executors said last."""
        known = {runtime: self._described[runtime] for runtime in self._executors if runtime in self._described}
        return merge(known, hostname=self._hostname, generic=self._generic, tls_info=self._tls_info())

    async def _ask(self, runtimes: list[str]) -> bool:
        """Ask the executor of these runtimes; return whether it answers after it did not."""
        name = ", ".join(runtimes)
        try:
            async with asyncio.timeout(self._seconds):
                description = await self._executors[runtimes[0]].describe()
        except Exception as error:  # noqa: BLE001 - the border: an executor's fault must not cost the session
            if name not in self._away:
                self._away.add(name)
                text = "no answer in time" if isinstance(error, TimeoutError) else text_of(error)
                log.warning("the executor for %s tasks does not answer: %s; the node goes on without", name, text)
            return False
        for runtime in runtimes:
            self._described[runtime] = description
        if name in self._away:
            self._away.discard(name)
            log.info("the executor for %s tasks answers again", name)
            return True
        return False
