"""Checks of what a task prints and its reader gets: every byte, in order, by stream, from the end or a time on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from swarmcore.plugin.executor import ExecutorError, LogLine, LogOptions
from swarmcore.testing.executor_contract.case import Case, Made, begin, case_of, close_stream, log_source, text_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import (
    READY,
    Count,
    Exit,
    Pause,
    Print,
    Program,
    RunOn,
    exits,
    prints,
    runs,
)
from swarmcore.testing.executor_contract.subject import Subject

MANY_LINES = 2000
TICKS = 100
LONG_LINE = b"0123456789abcdef" * 1024 * 8
"""128 KiB: longer than what engines and pipes take at once."""
EVERY_BYTE = bytes(range(256))
FOLLOW = LogOptions(follow=True)


class LogContract:
    """A line is what stands up to an end of line, that included; the pieces of a long one come one after another."""

    pytestmark = in_a_loop

    async def test_stdout_and_stderr_are_kept_apart(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Print(b"to out\n", 1), Print(b"to err\n", 2), Print(b"out again\n", 1)))

            lines = await case.logs(made)

            out, err = text_of(lines, 1), text_of(lines, 2)
            assert (out, err) == (b"to out\nout again\n", b"to err\n"), f"stdout is {out!r} and stderr {err!r}"

    async def test_one_stream_is_given_where_one_is_asked_for(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Print(b"to out\n", 1), Print(b"to err\n", 2)))

            lines = await case.logs(made, LogOptions(streams=frozenset({2})))

            got = [(line.stream, line.data) for line in lines]
            assert got == [(2, b"to err\n")], f"stderr alone was asked for: {got}"

    async def test_lines_come_one_by_one_in_the_order_they_were_printed(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Count(MANY_LINES)))

            lines = [line.data for line in await case.logs(made)]

            expected = [b"%d\n" % number for number in range(1, MANY_LINES + 1)]
            assert lines == expected, f"{len(lines)} lines of {MANY_LINES}; the first that is wrong: " + repr(
                next((got for got, right in zip(lines, expected, strict=False) if got != right), "none")
            )

    async def test_every_byte_comes_as_it_was_printed(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            steps = (Print(EVERY_BYTE + b"\n"), Print(b"\r\n\xff\xfe\0\n"))
            made = await _over(case, Program(steps=steps, is_binary=True))

            got = text_of(await case.logs(made))

            assert got == EVERY_BYTE + b"\n\r\n\xff\xfe\0\n", f"bytes were changed or lost: {got!r}"

    async def test_a_long_line_comes_whole(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Print(LONG_LINE[:4096], 1, 32), Print(b"\nshort\n")))

            got = text_of(await case.logs(made))

            assert got.endswith(b"\nshort\n"), f"what follows a long line is {got[-20:]!r}"
            assert len(got) == len(LONG_LINE) + 7, f"{len(got)} bytes of {len(LONG_LINE) + 7}"
            assert got == LONG_LINE + b"\nshort\n", "a long line was changed"

    async def test_what_stands_after_the_last_end_of_line_comes_too(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Print(b"line\nno end")))

            got = text_of(await case.logs(made))

            assert got == b"line\nno end", f"the output is {got!r}"

    async def test_a_task_that_prints_nothing_has_an_empty_output(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, exits(0))

            assert await case.logs(made) == []

    async def test_a_task_that_was_not_started_has_an_empty_output(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(Program())

            assert await case.logs(made) == []

    async def test_without_follow_the_output_so_far_ends(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            got = text_of(await case.logs(made))

            assert got == READY.data, f"the output so far is {got!r}"

    async def test_follow_brings_what_is_printed_later_and_ends_with_the_task(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(_says_goodbye())
            stream = log_source(made.controller).logs(FOLLOW)
            first = await case.soon(anext(stream), "the first line of output")
            reading = begin(_read(stream))
            await asyncio.sleep(0.05)

            await case.step(made.controller.shutdown, "shutdown")

            rest = await case.soon(reading, "a stream that follows a task which has ended")
            got = first.data + text_of(rest)
            assert got == READY.data + b"goodbye\n", f"followed: {got!r}"

    async def test_follow_loses_nothing_of_a_task_that_prints_a_lot(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            half = Count(MANY_LINES // 2)
            made = await case.prepared(Program(steps=(half, Pause(0.3), half, Pause(0.3))))
            await case.step(made.controller.start, "start")

            got = text_of(await case.logs(made, FOLLOW))

            lines = got.splitlines()
            expected = [b"%d" % number for number in range(1, half.last + 1)] * 2
            assert lines == expected, f"followed {len(lines)} lines of {len(expected)}"

    async def test_follow_of_a_task_that_has_ended_ends(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Print(b"said\n")))

            got = text_of(await case.logs(made, FOLLOW))

            assert got == b"said\n", f"followed: {got!r}"

    async def test_tail_gives_the_last_lines(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Count(9)))

            got = [line.data for line in await case.logs(made, LogOptions(tail=2))]

            assert got == [b"8\n", b"9\n"], f"the last two of nine: {got}"

    async def test_a_tail_of_more_than_there_is_gives_all(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Count(3)))

            got = [line.data for line in await case.logs(made, LogOptions(tail=1000))]

            assert got == [b"1\n", b"2\n", b"3\n"], f"the last 1000 of three: {got}"

    async def test_a_tail_of_nothing_gives_only_what_is_printed_later(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            # Whoever begins to read does so at some time that nobody tells: there is always something to come.
            ticks = [step for number in range(TICKS) for step in (Pause(0.3), Print(b"tick %d\n" % number))]
            made = await case.started(Program(steps=(READY, *ticks, RunOn())))

            nothing = await case.logs(made, LogOptions(tail=0))
            stream = log_source(made.controller).logs(LogOptions(tail=0, follow=True))
            first = await case.soon(anext(stream), "the first line that is printed after the tail of nothing")
            await case.soon(close_stream(stream), "closing a stream of output")

            assert nothing == [], f"a tail of nothing has lines: {nothing}"
            assert first.data.startswith(b"tick "), f"followed from the end: {first.data!r}"

    async def test_each_line_has_the_time_at_which_it_was_printed(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            began = time.time_ns()
            _, early, late = await _two_lines(case)
            ended = time.time_ns()

            slack = int((subject.log_resolution + 0.05) * 1e9)
            stamps = [early.timestamp_ns, late.timestamp_ns]
            assert began - slack <= stamps[0] and stamps[1] <= ended + slack, f"printed after {began}: {stamps}"
            assert stamps[0] < stamps[1], f"lines printed one after the other have the times {stamps}"

    async def test_since_gives_what_was_printed_then_and_later(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made, early, late = await _two_lines(case)

            got = text_of(await case.logs(made, LogOptions(since_ns=late.timestamp_ns)))
            everything = text_of(await case.logs(made, LogOptions(since_ns=early.timestamp_ns)))

            assert got == late.data, f"since the time of {late.data!r}: {got!r}"
            assert everything == early.data + late.data, f"since the time of the first line: {everything!r}"

    async def test_many_read_the_same_output_at_once(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            streams = [log_source(made.controller).logs(FOLLOW) for _ in range(20)]

            firsts = await asyncio.gather(*(case.soon(anext(each), "the first line of output") for each in streams))

            for each in streams:
                await case.soon(close_stream(each), "closing a stream of output")
            assert {line.data for line in firsts} == {READY.data}, f"twenty readers got {firsts}"

    async def test_output_is_there_after_recovery(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await _over(case, prints(Print(b"early\n")))
            found = await case.found(await case.another_executor(), made.task, made.controller.handle)

            got = text_of(await case.logs(found))

            assert got == b"early\n", f"the output of a task found again is {got!r}"

    async def test_reading_what_was_removed_ends(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            stream = log_source(made.controller).logs(FOLLOW)
            await case.soon(anext(stream), "the first line of output")
            reading = begin(_read(stream))
            await asyncio.sleep(0)

            await case.removed(made)

            await case.soon(_ended(reading), "a stream that follows a task which was removed")
            await case.soon(_ended(begin(case.logs(made))), "reading the output of a task that was removed")


def _says_goodbye() -> Program:
    return Program(steps=(READY, RunOn()), on_signal={"TERM": (Print(b"goodbye\n"), Exit(0))})


async def _over(case: Case, program: Program) -> Made:
    """A task that has run to its end."""
    made = await case.started(program)
    await case.end_of(made)
    return made


async def _two_lines(case: Case) -> tuple[Made, LogLine, LogLine]:
    """A task that printed two lines, so far apart that the times of its lines can't be the same."""
    made = await case.started(_says_goodbye())
    await asyncio.sleep(2.1 * case.subject.log_resolution)
    await case.step(made.controller.shutdown, "shutdown")
    await case.end_of(made)
    lines = await case.logs(made)
    assert text_of(lines) == READY.data + b"goodbye\n" and len(lines) == 2, f"printed two lines: {lines}"
    return made, lines[0], lines[1]


async def _read(stream: AsyncIterator[LogLine]) -> list[LogLine]:
    try:
        return [line async for line in stream]
    finally:
        await close_stream(stream)


async def _ended(reading: asyncio.Task[list[LogLine]]) -> None:
    """How a stream ends whose task is gone is the executor's to say; that it ends is not."""
    try:
        await reading
    except ExecutorError:
        return
