"""Executors that are wrong in one step of a task's life."""

from __future__ import annotations

import asyncio

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    ExecOptions,
    ExecSession,
    ExitError,
    TaskRejectedError,
)
from swarmcore.testing.executor_contract.memory import (
    RUNTIME,
    Box,
    ModelController,
    ModelExecutor,
)
from swarmcore.testing.executor_contract.mutants.corpus import FOR_EVER, controller, executor


@controller("test_wait_returns_when_the_task_ended_well")
class ZeroIsAnError(ModelController):
    def raise_end(self, box: Box) -> None:
        raise ExitError(box.exit_code or 0)


@controller("test_wait_tells_each_exit_code")
class CodesEndAt254(ModelController):
    def raise_end(self, box: Box) -> None:
        if box.exit_code:
            raise ExitError(min(box.exit_code, 254))


@controller("test_wait_tells_the_end_as_often_as_it_is_asked")
class TellsOnce(ModelController):
    is_told: bool = False

    async def wait(self) -> None:
        if self.is_told:
            return
        try:
            await super().wait()
        except ExitError:
            self.is_told = True
            raise


@controller("test_all_that_wait_hear_of_the_end")
class OneWaiter(ModelController):
    waiting: int = 0

    async def wait(self) -> None:
        self.waiting += 1
        try:
            if self.waiting > 1:
                await asyncio.sleep(FOR_EVER)
            await super().wait()
        finally:
            self.waiting -= 1


@controller("test_preparing_runs_nothing")
class StartsInPrepare(ModelController):
    async def prepare(self) -> None:
        await super().prepare()
        if self.box is not None and not self.box.run:
            self.box.start()
            self.engine.early.add(self.task.id)

    async def exec(self, options: ExecOptions) -> ExecSession:
        if self.task.id in self.engine.early:
            raise TaskRejectedError("not started")
        return await super().exec(options)

    async def start(self) -> None:
        if self.task.id not in self.engine.early:
            await super().start()
            return
        await self.ask()
        self.engine.early.discard(self.task.id)
        box = self.box
        if box is None:
            raise TaskRejectedError("no such container")
        if box.program.is_missing:
            raise TaskRejectedError("no such file or directory")
        if self.waits_for_health(box):
            await self.wait_healthy(box)


@controller("test_preparing_twice_makes_one")
class MakesTwo(ModelController):
    is_made: bool = False

    async def prepare(self) -> None:
        if self.is_made and self.box is not None:
            self.box.volumes.add(new_id())
        await super().prepare()
        self.is_made = True


@controller("test_another_controller_goes_on_with_what_is_prepared")
class OwnBoxesOnly(ModelController):
    has_asked: bool = False

    async def prepare(self) -> None:
        if self.box is not None and not self.has_asked:
            raise TaskRejectedError("the name is in use")
        self.has_asked = True
        await super().prepare()


@controller("test_starting_twice_runs_it_once")
class StartsAgain(ModelController):
    has_started: bool = False

    async def start(self) -> None:
        if self.has_started and self.box is not None and self.box.is_running:
            self.box.stop()
            self.box.start()
            return
        await super().start()
        self.has_started = True


@controller("test_what_has_ended_is_not_started_again")
class RunsAgain(ModelController):
    async def start(self) -> None:
        if self.box is not None and self.box.exit_code is not None:
            self.box.start()
            return
        await super().start()


@controller("test_starting_what_was_not_prepared_is_an_error")
class KeyErrorInStart(ModelController):
    async def start(self) -> None:
        if self.engine.is_up and self.box is None:
            raise KeyError(self.task.id)
        await super().start()


@controller("test_prepare_goes_on_after_it_was_cancelled")
class BusyForEver(ModelController):
    was_cancelled: bool = False

    async def prepare(self) -> None:
        if self.was_cancelled:
            raise TaskRejectedError("prepare is under way")
        try:
            await super().prepare()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


@controller("test_start_goes_on_after_it_was_cancelled")
class StartsAfterStart(ModelController):
    was_cancelled: bool = False

    async def start(self) -> None:
        if self.was_cancelled and self.box is not None and self.box.is_running:
            self.box.stop()
            self.box.start()
            return
        try:
            await super().start()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


@controller("test_wait_goes_on_after_it_was_cancelled")
class WaitsOnce(ModelController):
    was_cancelled: bool = False

    async def wait(self) -> None:
        if self.was_cancelled:
            return
        try:
            await super().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


@controller("test_an_update_leaves_what_runs_alone")
class RestartsOnUpdate(ModelController):
    async def update(self, task: Task) -> None:
        if self.box is not None:
            self.box.stop()
            self.box.start()


@controller("test_a_command_that_does_not_exist_is_refused_with_a_reason")
class RawError(ModelController):
    async def start(self) -> None:
        if self.box is not None and self.box.program.is_missing:
            raise FileNotFoundError(2, "No such file or directory")
        await super().start()


@executor("test_a_task_of_another_runtime_is_refused_with_a_reason")
class TakesEverything(ModelExecutor):
    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        task.spec.generic.kind = RUNTIME
        return await super().controller(task, dependencies)
