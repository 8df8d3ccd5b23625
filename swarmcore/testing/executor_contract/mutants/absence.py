"""Executors that are wrong while their engine is away."""

from __future__ import annotations

from swarmcore.plugin.executor import (
    TaskRejectedError,
)
from swarmcore.testing.executor_contract.memory import (
    ModelController,
)
from swarmcore.testing.executor_contract.mutants.corpus import controller


@controller("test_calls_fail_for_now_while_the_engine_is_away_and_work_when_it_is_back")
class RawConnection(ModelController):
    async def shutdown(self) -> None:
        if not self.engine.is_up:
            raise ConnectionRefusedError(111, "Connection refused")
        await super().shutdown()


@controller("test_a_wait_outlives_the_engine_and_hears_of_the_end_when_it_is_back")
class EndsWithTheEngine(ModelController):
    async def wait_news(self) -> None:
        await super().wait_news()
        if not self.engine.is_up:
            raise TaskRejectedError("the engine is gone")
