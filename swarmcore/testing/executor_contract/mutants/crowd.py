"""Executors that are wrong where many wait at once, or when they are closed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import ClassVar

from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin.executor import (
    ExitError,
    LogLine,
    LogOptions,
    TemporaryError,
)
from swarmcore.testing.executor_contract.memory import (
    Box,
    ModelController,
    ModelExecutor,
    ModelSubject,
)
from swarmcore.testing.executor_contract.mutants.corpus import FOR_EVER, MUTANTS, controller, executor


@controller("test_200_waits_delay_no_other_call")
class SixThreads(ModelController):
    async def wait(self) -> None:
        async with self.executor.slots:
            await super().wait()


class SixThreadsExecutor(ModelExecutor):
    controller_kind: ClassVar[type[ModelController]] = SixThreads

    async def describe(self) -> NodeDescription:
        async with self.slots:
            return await super().describe()


MUTANTS["test_200_waits_delay_no_other_call"] = lambda: ModelSubject(SixThreadsExecutor)


@controller("test_200_waits_all_hear_of_the_end")
class HundredWatchers(ModelController):
    async def wait(self) -> None:
        self.executor.waiting += 1
        try:
            if self.executor.waiting > 100 and self.is_recovered:
                await asyncio.sleep(FOR_EVER)
            await super().wait()
        finally:
            self.executor.waiting -= 1


@controller("test_200_waits_take_no_thread_each")
class ThreadForEachWait(ModelController):
    async def wait(self) -> None:
        over = threading.Event()
        thread = threading.Thread(target=over.wait, daemon=True)
        thread.start()
        try:
            await super().wait()
        finally:
            over.set()
            thread.join()


@executor("test_no_call_blocks_the_event_loop")
class Blocks(ModelExecutor):
    async def describe(self) -> NodeDescription:
        time.sleep(0.3)  # noqa: ASYNC251 - the fault
        return await super().describe()


@controller("test_closing_a_controller_ends_its_wait_without_an_outcome")
class ClosedMeansDone(ModelController):
    async def wait(self) -> None:
        try:
            await super().wait()
        except TemporaryError:
            if not self.is_closed:
                raise


@controller("test_closing_the_executor_ends_waits_without_an_outcome")
class ClosedMeansFailed(ModelController):
    async def wait(self) -> None:
        try:
            await super().wait()
        except TemporaryError:
            if self.executor.is_closed and not self.is_closed:
                raise ExitError(255) from None
            raise


@controller("test_closing_the_executor_ends_a_shutdown_that_waits")
class StopsRegardless(ModelController):
    async def wait_ended(self, box: Box) -> None:
        try:
            await super().wait_ended(box)
        except TemporaryError:
            await asyncio.sleep(FOR_EVER)


@controller("test_closing_the_executor_ends_streams_of_output")
class StreamsGoOn(ModelController):
    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        try:
            async for line in super().logs(options):
                yield line
        except TemporaryError:
            await asyncio.sleep(FOR_EVER)


@executor("test_closing_twice_is_closing_once")
class ClosesOnce(ModelExecutor):
    async def aclose(self) -> None:
        if self.is_closed:
            raise RuntimeError("closed already")
        await super().aclose()
