"""Executors that are wrong in how a task is stopped, or removed."""

from __future__ import annotations

import asyncio

from swarmcore.plugin.executor import (
    ExitError,
    TaskRejectedError,
)
from swarmcore.testing.executor_contract.memory import (
    LATENCY_SECONDS,
    Box,
    ModelController,
)
from swarmcore.testing.executor_contract.mutants.corpus import FOR_EVER, controller


@controller("test_shutdown_asks_with_sigterm")
class InterruptsFirst(ModelController):
    def send_stop(self, box: Box) -> None:
        if not box.program.stop_signal:
            box.signal("INT")
        super().send_stop(box)


@controller("test_shutdown_asks_with_the_signal_of_the_spec")
class AlwaysTerm(ModelController):
    def send_stop(self, box: Box) -> None:
        box.signal("TERM")


@controller("test_what_stops_in_time_is_not_waited_for_longer")
class WaitsOutTheGrace(ModelController):
    async def wait_ended(self, box: Box) -> None:
        await super().wait_ended(box)
        if box.exit_code != 137:
            await asyncio.sleep(FOR_EVER)


@controller("test_what_does_not_stop_has_its_grace_period_and_is_killed")
class HalfTheGrace(ModelController):
    def grace(self, box: Box) -> float:
        return super().grace(box) / 2


@controller("test_terminate_kills_at_once")
class TerminateAsks(ModelController):
    was_asked: bool = False

    async def shutdown(self) -> None:
        self.was_asked = True
        await super().shutdown()

    async def terminate(self) -> None:
        if not self.was_asked:
            await super().shutdown()
        await super().terminate()


@controller("test_a_kill_ends_a_shutdown_that_waits")
class OneAtATime(ModelController):
    is_stopping: bool = False

    async def shutdown(self) -> None:
        self.is_stopping = True
        try:
            await super().shutdown()
        finally:
            self.is_stopping = False

    async def terminate(self) -> None:
        while self.is_stopping:  # noqa: ASYNC110 - the fault
            await asyncio.sleep(LATENCY_SECONDS)
        await super().terminate()


@controller("test_a_shutdown_that_was_cancelled_can_be_followed_by_a_kill")
class StopsOnce(ModelController):
    was_cancelled: bool = False

    async def shutdown(self) -> None:
        try:
            await super().shutdown()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    async def terminate(self) -> None:
        if not self.was_cancelled:
            await super().terminate()


@controller("test_a_wait_hears_that_the_task_was_stopped")
class GuessesTheCode(ModelController):
    waiting: int = 0
    was_stopped: bool = False

    async def wait(self) -> None:
        self.waiting += 1
        try:
            await super().wait()
        finally:
            self.waiting -= 1

    async def shutdown(self) -> None:
        self.was_stopped = self.waiting > 0
        await super().shutdown()

    def raise_end(self, box: Box) -> None:
        if self.was_stopped:
            raise ExitError(143)
        super().raise_end(box)


@controller("test_shutdown_may_come_in_every_state_and_twice")
class ShutdownOfNothing(ModelController):
    async def shutdown(self) -> None:
        await self.ask()
        if self.box is None:
            raise TaskRejectedError("no such container")
        await super().shutdown()


@controller("test_terminate_may_come_in_every_state_and_twice")
class TerminateOfNothing(ModelController):
    async def terminate(self) -> None:
        await self.ask()
        if self.box is None:
            raise TaskRejectedError("no such container")
        await super().terminate()


@controller("test_remove_may_come_in_every_state_and_twice")
class RemovesOnce(ModelController):
    is_removed: bool = False

    async def remove(self) -> None:
        if self.is_removed:
            raise TaskRejectedError("no such container")
        await super().remove()
        self.is_removed = True


@controller("test_remove_ends_what_runs")
class RemoveAsks(ModelController):
    def forget(self, box: Box) -> None:
        """The box is forgotten, and what it runs only asked to end."""
        if box.is_running and "TERM" in box.program.on_signal and not box.program.on_signal["TERM"]:
            self.engine.orphans[self.task.id] = box
            box.signal("TERM")
        else:
            super().forget(box)


@controller("test_remove_leaves_other_tasks_alone")
class RemovesByName(ModelController):
    def forget(self, box: Box) -> None:
        super().forget(box)
        for other in list(self.engine.boxes.values()):
            other.end(137)


@controller("test_what_was_removed_can_be_prepared_and_started_anew")
class Tombstones(ModelController):
    async def prepare(self) -> None:
        if self.task.id in self.engine.removed:
            raise TaskRejectedError("the task was removed")
        await super().prepare()

    def forget(self, box: Box) -> None:
        super().forget(box)
        self.engine.removed.add(self.task.id)
