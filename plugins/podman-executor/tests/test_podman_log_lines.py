"""Lines that conmon cut in their middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from swarmcore_podman_executor.logs import MAX_LINE, joined

from swarmcore.plugin.executor import LogLine

Item = tuple[int, bytes] | asyncio.Event


async def printed(*items: Item) -> AsyncGenerator[LogLine, None]:
    """Pieces by stream; an event is waited for."""
    for number, item in enumerate(items):
        if isinstance(item, asyncio.Event):
            await item.wait()
        else:
            yield LogLine(stream=item[0], timestamp_ns=number, data=item[1])


async def lines_of(*items: Item, rest_seconds: float | None = None) -> list[tuple[int, int, bytes]]:
    return [(line.stream, line.timestamp_ns, line.data) async for line in joined(printed(*items), rest_seconds)]


async def test_the_pieces_of_a_line_are_joined_and_keep_the_first_one_s_time() -> None:
    found = await lines_of((1, b"a"), (1, b"b"), (1, b"c\n"), (1, b"d\n"), rest_seconds=5.0)

    assert found == [(1, 0, b"abc\n"), (1, 3, b"d\n")]


async def test_streams_are_joined_each_by_itself() -> None:
    found = await lines_of((1, b"a"), (2, b"x\n"), (2, b"y"), (1, b"b\n"), (2, b"z\n"))

    assert found == [(2, 1, b"x\n"), (1, 0, b"ab\n"), (2, 2, b"yz\n")]


async def test_what_was_not_finished_comes_at_the_end() -> None:
    assert await lines_of((1, b"a\n"), (1, b"prompt"), (2, b"other")) == [
        (1, 0, b"a\n"),
        (1, 1, b"prompt"),
        (2, 2, b"other"),
    ]


async def test_a_long_line_comes_in_pieces() -> None:
    half = b"x" * (MAX_LINE // 2)

    found = await lines_of((1, half), (1, half), (1, half), (1, b"\n"))

    assert [len(data) for _, _, data in found] == [MAX_LINE, MAX_LINE // 2 + 1]


async def test_a_rest_that_does_not_come_is_not_waited_for() -> None:
    typed = asyncio.Event()
    lines = joined(printed((1, b"name? "), typed, (1, b"bob\n")), 0.01)

    prompt = await anext(lines)
    typed.set()
    rest = await anext(lines)

    assert (prompt.data, rest.data) == (b"name? ", b"bob\n")
    await lines.aclose()


async def test_who_stops_reading_closes_what_is_read() -> None:
    source = printed((1, b"name? "), asyncio.Event())
    lines = joined(source, 0.01)
    await anext(lines)

    await lines.aclose()

    assert await anext(source, None) is None
