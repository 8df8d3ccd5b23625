"""What processes print, read back: its times, its ends, and what is left of very much of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from swarmcore_process_executor import record as records
from swarmcore_process_executor.output import lines
from swarmcore_process_executor.record import NOTE, Record

from swarmcore.plugin.executor import LogLine, LogOptions

OVER: Callable[[], bool] = lambda: True  # noqa: E731 - a value of that type


class Output:
    """The two streams of a task, written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = [Record(folder, stream) for stream in (1, 2)]

    def write(self, data: bytes, at: int, stream: int = 1) -> None:
        """Append, and note it as of this time in ns."""
        path = self.folder / ("stdout", "stderr")[stream - 1]
        with path.open("ab") as file:
            file.write(data)
        os.utime(path, ns=(at, at))
        self.records[stream - 1].note()

    async def read(self, options: LogOptions | None = None, *, fresh: bool = False) -> list[LogLine]:
        found = [Record(self.folder, stream) for stream in (1, 2)] if fresh else self.records
        return [line async for line in lines(found, options or LogOptions(), OVER)]

    async def text(self, options: LogOptions | None = None) -> bytes:
        return b"".join(line.data for line in await self.read(options))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


async def test_a_line_has_the_time_of_the_first_look_that_saw_it_whole(output: Output) -> None:
    output.write(b"one\nhal", 1000)
    output.write(b"f\nthree\n", 2000)

    stamps = [(line.data, line.timestamp_ns) for line in await output.read()]

    assert stamps == [(b"one\n", 1000), (b"half\n", 2000), (b"three\n", 2000)]


async def test_another_agent_reads_the_same_times(output: Output) -> None:
    for number in range(10):
        output.write(b"%d\n" % number, 1000 + number)

    assert await output.read(fresh=True) == await output.read()


async def test_streams_are_merged_by_their_times(output: Output) -> None:
    for number in range(6):
        output.write(b"%d\n" % number, 1000 + number, stream=1 + number % 2)

    assert await output.text() == b"0\n1\n2\n3\n4\n5\n"
    assert await output.text(LogOptions(tail=3)) == b"3\n4\n5\n"
    assert await output.text(LogOptions(streams=frozenset({2}))) == b"1\n3\n5\n"


@pytest.mark.parametrize("count", [0, 1, 2, 700, 5000, 9999, 10_000, 20_000])
async def test_the_last_lines_of_many_are_found_from_the_end(output: Output, count: int) -> None:
    everything = [b"line %d\n" % number for number in range(10_000)]
    output.write(b"".join(everything), 1000)

    got = [line.data for line in await output.read(LogOptions(tail=count))]

    assert got == everything[len(everything) - min(count, 10_000) :]


async def test_since_begins_with_the_first_line_of_that_time(output: Output) -> None:
    for number in range(100):
        output.write(b"%d\npart" % number, 1000 + number)

    for since in (0, 1000, 1050, 1099, 2000):
        expected = [line for line in await output.read() if line.timestamp_ns >= since]
        assert await output.read(LogOptions(since_ns=since)) == expected


async def test_a_clock_that_is_set_back_turns_no_order_around(output: Output) -> None:
    output.write(b"one\n", 5000)
    output.write(b"two\n", 3000)

    assert [line.timestamp_ns for line in await output.read()] == [5000, 5000]


async def test_a_note_that_was_cut_off_costs_no_line(output: Output) -> None:
    output.write(b"one\n", 1000)
    output.write(b"two\n", 2000)
    notes = output.folder / "stdout.times"
    os.truncate(notes, notes.stat().st_size - 3)

    found = await output.read(fresh=True)

    assert [line.data for line in found] == [b"one\n", b"two\n"]
    assert notes.stat().st_size % NOTE.size == 0


async def test_the_oldest_part_is_given_back_and_the_rest_is_whole(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_BYTES", 1024 * 1024)
    monkeypatch.setattr(records, "SPARE_BYTES", 0)
    everything = [b"%07d" % number + b"x" * 1000 + b"\n" for number in range(4000)]
    for start in range(0, 4000, 100):
        output.write(b"".join(everything[start : start + 100]), 1000 + start)

    output.records[0].bound()

    used = (output.folder / "stdout").stat().st_blocks * 512
    for found in (await output.read(), await output.read(fresh=True)):
        kept = [line.data for line in found]
        assert kept == everything[4000 - len(kept) :] and 900 < len(kept) < 1200
    assert used < 1024 * 1024 + 256 * 1024
    assert [line.data for line in await output.read(LogOptions(tail=2))] == everything[-2:]
    output.write(b"more\n", 9000)
    assert (await output.read())[-1].data == b"more\n"


async def test_a_follower_loses_nothing_while_the_oldest_part_is_given_back(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_BYTES", 1024 * 1024)
    monkeypatch.setattr(records, "SPARE_BYTES", 0)
    is_over = False
    got: list[bytes] = []

    async def follow() -> None:
        async for line in lines(output.records, LogOptions(follow=True), lambda: is_over):
            got.append(line.data)

    following = asyncio.create_task(follow())
    everything = [b"%07d" % number + b"x" * 1000 + b"\n" for number in range(4000)]
    for start in range(0, 4000, 500):
        output.write(b"".join(everything[start : start + 500]), 1000 + start)
        async with asyncio.timeout(20):
            while len(got) < start + 500:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        output.records[0].bound()
    is_over = True
    await asyncio.wait_for(following, 20)

    assert got == everything


async def test_a_line_without_an_end_for_megabytes_comes_in_pieces(output: Output) -> None:
    data = os.urandom(300_000).replace(b"\n", b"-")
    output.write(data, 1000)
    output.write(b"\nnext\n", 2000)

    found = await output.read()

    assert b"".join(line.data for line in found) == data + b"\nnext\n"
    assert max(len(line.data) for line in found) <= 64 * 1024
    assert found[-1].data == b"next\n"


async def test_a_follower_that_falls_too_far_behind_is_told_what_it_lost(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_BYTES", 1024 * 1024)
    monkeypatch.setattr(records, "SPARE_BYTES", 0)
    output.write(b"first\n" + b"x" * 1000 + b"\n", 1000)
    following = lines(output.records, LogOptions(follow=True), OVER)
    assert (await anext(following)).data == b"first\n"

    everything = [b"%07d" % number + b"x" * 1000 + b"\n" for number in range(4000)]
    output.write(b"".join(everything), 2000)
    output.records[0].bound()
    rest = [line async for line in following]

    (told,) = [line for line in rest if line.attrs]
    assert b"bytes of a task's stdout were gone before they were read" in told.data
    kept = [line.data for line in rest if not line.attrs][1:]
    assert kept == everything[4000 - len(kept) :]
