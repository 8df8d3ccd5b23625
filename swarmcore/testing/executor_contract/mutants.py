"""Executors that are wrong in one thing, one for each check: the model, spoiled. Each must fail that check alone.

A mutant is as narrow as a real fault would be, and where a fault of its kind would break half the suite, narrower.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    ExecOptions,
    ExecSession,
    ExitError,
    HostInfo,
    LogLine,
    LogOptions,
    TaskRejectedError,
    TemporaryError,
)
from swarmcore.testing.executor_contract.memory import (
    LATENCY_SECONDS,
    RUNTIME,
    Box,
    ModelController,
    ModelExecutor,
    ModelFactory,
    ModelSubject,
)
from swarmcore.testing.executor_contract.program import NO_HEALTH_TEST

Make = Callable[[], ModelSubject]
MUTANTS: Final[dict[str, Make]] = {}
"""A spoiled subject for each check, by the check's name."""
FOR_EVER: Final = 1e9
HOUR_NS: Final = 3600 * 10**9


@dataclass(slots=True)
class Litter:
    """What mutants leave in this process; whoever ran them clears it."""

    descriptors: list[int]
    threads: list[tuple[threading.Thread, threading.Event]]

    def add_thread(self) -> threading.Event:
        over = threading.Event()
        thread = threading.Thread(target=over.wait, name="litter", daemon=True)
        thread.start()
        self.threads.append((thread, over))
        return over

    def clear(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        for thread, over in self.threads:
            over.set()
            thread.join()
        self.descriptors.clear()
        self.threads.clear()


LITTER: Final = Litter([], [])


def controller(check: str) -> Callable[[type[ModelController]], type[ModelController]]:
    """Its controllers are spoiled."""

    def register(kind: type[ModelController]) -> type[ModelController]:
        executor: Any = type(f"{kind.__name__}Executor", (ModelExecutor,), {"controller_kind": kind})
        MUTANTS[check] = lambda: ModelSubject(executor)
        return kind

    return register


def executor(check: str) -> Callable[[type[ModelExecutor]], type[ModelExecutor]]:
    """The executor itself is."""

    def register(kind: type[ModelExecutor]) -> type[ModelExecutor]:
        MUTANTS[check] = lambda: ModelSubject(kind)
        return kind

    return register


# Description


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


# The state table


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


# Stopping


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


# Recovery


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


# Crowds, and closing


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


# Output


@controller("test_stdout_and_stderr_are_kept_apart")
class OneStream(ModelController):
    def followed(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        found = super().followed(lines, options)
        return found if len(options.streams) == 1 else [replace(line, stream=1) for line in found]


@controller("test_one_stream_is_given_where_one_is_asked_for")
class AllStreams(ModelController):
    def followed(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        return lines


@controller("test_lines_come_one_by_one_in_the_order_they_were_printed")
class SortedLines(ModelController):
    def selected(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        found = super().selected(lines, options)
        return sorted(found, key=lambda line: line.data) if len(found) > 1000 else found


@controller("test_every_byte_comes_as_it_was_printed")
class TextOnly(ModelController):
    def lines_of(self, box: Box) -> list[LogLine]:
        return [replace(line, data=line.data.decode(errors="replace").encode()) for line in super().lines_of(box)]


@controller("test_a_long_line_comes_whole")
class CutsLongLines(ModelController):
    def lines_of(self, box: Box) -> list[LogLine]:
        return [replace(line, data=line.data[: 64 * 1024]) for line in super().lines_of(box)]


@controller("test_what_stands_after_the_last_end_of_line_comes_too")
class WholeLinesOnly(ModelController):
    def lines_of(self, box: Box) -> list[LogLine]:
        return [line for line in super().lines_of(box) if line.data.endswith(b"\n")]


@controller("test_a_task_that_prints_nothing_has_an_empty_output")
class NothingIsALine(ModelController):
    def lines_of(self, box: Box) -> list[LogLine]:
        lines = super().lines_of(box)
        is_silent = not lines and box.exit_code is not None
        return [LogLine(stream=1, timestamp_ns=1, data=b"")] if is_silent else lines


@controller("test_a_task_that_was_not_started_has_an_empty_output")
class NoOutputYet(ModelController):
    def lines_of(self, box: Box) -> list[LogLine]:
        if not box.run:
            raise TaskRejectedError("no such file")
        return super().lines_of(box)


@controller("test_without_follow_the_output_so_far_ends")
class AlwaysFollows(ModelController):
    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        async for line in super().logs(replace(options, follow=options.follow or options.tail is None)):
            yield line


@controller("test_follow_brings_what_is_printed_later_and_ends_with_the_task")
class LosesTheLastWords(ModelController):
    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        has_waited = False
        async for line in super().logs(options):
            if has_waited and options.tail is None and self.box is not None and not self.box.is_running:
                return
            yield line
            has_waited = options.follow


@controller("test_follow_loses_nothing_of_a_task_that_prints_a_lot")
class ThousandLines(ModelController):
    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        count = 0
        async for line in super().logs(options):
            count += 1
            if not options.follow or count <= 1000:
                yield line


@controller("test_follow_of_a_task_that_has_ended_ends")
class FollowsTheDead(ModelController):
    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        was_over = self.box is not None and self.box.exit_code is not None
        async for line in super().logs(options):
            yield line
        if was_over and options.follow:
            await asyncio.sleep(FOR_EVER)


@controller("test_tail_gives_the_last_lines")
class OneMore(ModelController):
    def selected(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        return super().selected(lines, replace(options, tail=options.tail + 1) if options.tail else options)


@controller("test_a_tail_of_more_than_there_is_gives_all")
class TailMustFit(ModelController):
    def selected(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        return [] if options.tail is not None and options.tail > len(lines) else super().selected(lines, options)


@controller("test_a_tail_of_nothing_gives_only_what_is_printed_later")
class ZeroIsAll(ModelController):
    def selected(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        return super().selected(lines, replace(options, tail=options.tail or None))


@controller("test_each_line_has_the_time_at_which_it_was_printed")
class LocalTime(ModelController):
    def lines_of(self, box: Box) -> list[LogLine]:
        return [replace(line, timestamp_ns=line.timestamp_ns + HOUR_NS) for line in super().lines_of(box)]


@controller("test_since_gives_what_was_printed_then_and_later")
class SinceEver(ModelController):
    def selected(self, lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
        return super().selected(lines, replace(options, since_ns=None))


@controller("test_many_read_the_same_output_at_once")
class FiveReaders(ModelController):
    reading: int = 0

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        self.reading += 1
        try:
            if self.reading > 5:
                await asyncio.sleep(FOR_EVER)
            async for line in super().logs(options):
                yield line
        finally:
            self.reading -= 1


@controller("test_output_is_there_after_recovery")
class ForgetsOutput(ModelController):
    def lines_of(self, box: Box) -> list[LogLine]:
        return [] if self.is_recovered else super().lines_of(box)


@controller("test_reading_what_was_removed_ends")
class FollowsTheRemoved(ModelController):
    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        async for line in super().logs(options):
            yield line
        if self.box is None:
            await asyncio.sleep(FOR_EVER)


# Health


@controller("test_start_returns_when_the_task_is_healthy_and_not_before")
class Impatient(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        try:
            async with asyncio.timeout(0.6):
                await super().wait_healthy(box)
        except TimeoutError:
            return


@controller("test_a_task_that_does_not_become_healthy_fails_in_start_and_is_stopped")
class LeavesTheSick(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        self.is_starting = True
        try:
            await super().wait_healthy(box)
        finally:
            self.is_starting = False

    is_starting: bool = False

    async def stop_unhealthy(self, box: Box) -> None:
        if self.is_starting:
            raise ExitError(1, "unhealthy container")
        await super().stop_unhealthy(box)


@controller("test_a_task_that_turns_unhealthy_fails_in_wait_and_is_stopped")
class OnceHealthy(ModelController):
    def is_unhealthy(self, box: Box) -> bool:
        return False


@controller("test_a_task_that_ends_before_it_is_healthy_does_not_hang_start")
class HealthOnly(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        while not box.is_healthy:
            if box.is_unhealthy and box.is_running:
                await self.stop_unhealthy(box)
            await self.wait_news()


@controller("test_closing_the_executor_ends_a_start_that_waits_for_health")
class StartsRegardless(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        try:
            await super().wait_healthy(box)
        except TemporaryError:
            await asyncio.sleep(FOR_EVER)


@controller("test_without_a_check_nobody_asks_for_health")
class ChecksEverybody(ModelController):
    async def wait(self) -> None:
        if self.box is not None and self.box.program.health is None and self.box.is_sick:
            await self.stop_unhealthy(self.box)
        await super().wait()


@controller("test_a_check_that_is_switched_off_is_none")
class NoneIsACheck(ModelController):
    def waits_for_health(self, box: Box) -> bool:
        health = box.program.health
        return super().waits_for_health(box) or (health is not None and health.test == NO_HEALTH_TEST)


# An engine that is away


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


# Leaks


@controller("test_removed_tasks_leave_nothing_on_the_engine")
class LeavesVolumes(ModelController):
    def forget(self, box: Box) -> None:
        super().forget(box)
        if not self.is_recovered:
            self.engine.lost_volumes |= box.volumes


@controller("test_tasks_leave_no_file_descriptor")
class LeaksDescriptors(ModelController):
    async def start(self) -> None:
        LITTER.descriptors.append(os.open(os.devnull, os.O_RDONLY))
        await super().start()


@controller("test_tasks_leave_no_thread")
class LeaksThreads(ModelController):
    async def prepare(self) -> None:
        LITTER.add_thread()
        await super().prepare()


@controller("test_tasks_leave_no_asyncio_task")
class LeaksTasks(ModelController):
    async def start(self) -> None:
        await super().start()
        self.executor.litter.append(asyncio.create_task(asyncio.sleep(FOR_EVER)))
