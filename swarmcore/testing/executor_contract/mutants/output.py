"""Executors that are wrong in what they tell of a task's output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from swarmcore.plugin.executor import (
    LogLine,
    LogOptions,
    TaskRejectedError,
)
from swarmcore.testing.executor_contract.memory import (
    Box,
    ModelController,
)
from swarmcore.testing.executor_contract.mutants.corpus import FOR_EVER, HOUR_NS, controller


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
