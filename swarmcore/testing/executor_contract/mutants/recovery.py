"""Executors that are wrong in what they find again."""

from __future__ import annotations

import asyncio

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    TaskRejectedError,
)
from swarmcore.testing.executor_contract.memory import (
    LATENCY_SECONDS,
    Box,
    ModelController,
    ModelExecutor,
)
from swarmcore.testing.executor_contract.mutants.corpus import controller, executor


@executor("test_what_runs_outlives_the_executor")
class TakesThemAlong(ModelExecutor):
    async def aclose(self) -> None:
        await super().aclose()
        for box in self.engine.boxes.values():
            if box.maker is self:
                box.signal("TERM")
        await asyncio.sleep(LATENCY_SECONDS)


@executor("test_what_runs_is_found_again_and_not_started_anew")
class StartsAnew(ModelExecutor):
    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        found = await super().recover(task, handle, dependencies)
        box = self.engine.boxes.get(task.id)
        if box is not None and box.is_running and box.maker is not self and box.maker not in self.engine.dead:
            box.stop()
            box.start()
        return found


@executor("test_what_ran_when_the_agent_was_killed_is_found_again")
class SavesAtTheEnd(ModelExecutor):
    def knows(self, box: Box | None, handle: bytes | None) -> bool:
        return box is not None and box.maker not in self.engine.dead


@controller("test_what_ended_while_the_agent_was_away_tells_its_exit_code")
class OldEndsAreGood(ModelController):
    def raise_end(self, box: Box) -> None:
        if not self.is_recovered or self.has_waited:
            super().raise_end(box)

    has_waited: bool = False

    async def wait_news(self) -> None:
        self.has_waited = True
        await super().wait_news()

    async def shutdown(self) -> None:
        self.has_waited = True
        await super().shutdown()

    async def start(self) -> None:
        self.has_waited = True
        await super().start()


@controller("test_what_was_prepared_is_found_again_and_can_be_started")
class LostItsOrders(ModelController):
    async def start(self) -> None:
        if self.is_recovered:
            raise TaskRejectedError("no such container")
        await super().start()


@executor("test_a_task_is_found_again_without_its_handle")
class NeedsTheHandle(ModelExecutor):
    def knows(self, box: Box | None, handle: bytes | None) -> bool:
        return box is not None and handle is not None


@executor("test_nothing_is_found_of_what_was_never_made")
class FindsStrangers(ModelExecutor):
    def knows(self, box: Box | None, handle: bytes | None) -> bool:
        return box is not None or handle is None


@executor("test_nothing_is_found_of_what_was_removed")
class TrustsHandles(ModelExecutor):
    def knows(self, box: Box | None, handle: bytes | None) -> bool:
        return box is not None or handle is not None


@controller("test_what_was_found_again_is_removed_to_the_last_bit")
class ForgetsItsVolumes(ModelController):
    def forget(self, box: Box) -> None:
        super().forget(box)
        if self.is_recovered:
            self.engine.lost_volumes |= box.volumes


@controller("test_a_handle_is_small")
class LongHandle(ModelController):
    def make_handle(self) -> bytes:
        return super().make_handle().ljust(100_000)
