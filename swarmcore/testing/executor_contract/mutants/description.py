"""Executors that describe themselves wrongly."""

from __future__ import annotations

from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin.executor import (
    HostInfo,
)
from swarmcore.testing.executor_contract.memory import (
    ModelExecutor,
    ModelFactory,
    ModelSubject,
)
from swarmcore.testing.executor_contract.mutants.corpus import MUTANTS, executor


@executor("test_the_node_is_described")
class NoArchitecture(ModelExecutor):
    async def describe(self) -> NodeDescription:
        description = await super().describe()
        description.platform.architecture = ""
        return description


@executor("test_the_description_stays_the_same_while_nothing_changes")
class FreeMemory(ModelExecutor):
    described: int = 0

    async def describe(self) -> NodeDescription:
        description = await super().describe()
        self.described += 1
        description.resources.memory_bytes -= 4096 * self.described
        return description


class Pessimist(ModelFactory):
    async def available(self, host: HostInfo) -> bool:
        return False


MUTANTS["test_the_engine_is_there_for_its_factory"] = lambda: ModelSubject(factory=Pessimist)
