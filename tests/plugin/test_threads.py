"""Threads that block in the loop's place."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

from swarmcore.plugin.threads import Threads

HANGING = """
import asyncio, threading
from swarmcore.plugin.threads import Threads

async def main():
    threads = Threads(1, "t")
    asyncio.ensure_future(threads.run(threading.Event().wait))
    await asyncio.sleep(0)
    threads.close()

asyncio.run(main())
"""


async def test_work_is_done_side_by_side_up_to_the_limit() -> None:
    threads = Threads(3, "t")
    together = threading.Barrier(3)

    await asyncio.gather(*(threads.run(lambda: together.wait(5)) for _ in range(6)))
    names = {each.name for each in threading.enumerate() if each.name.startswith("t-")}
    threads.close()

    assert names == {"t-1", "t-2", "t-3"}


async def test_an_error_is_raised_where_it_is_awaited() -> None:
    threads = Threads(1, "t")

    try:
        await threads.run(lambda: 1 // 0)
    except ZeroDivisionError:
        said = True
    result = await threads.run(lambda: 7)
    threads.close()

    assert (said, result) == (True, 7)


async def test_work_that_was_cancelled_before_its_turn_is_not_done() -> None:
    threads = Threads(1, "t")
    free, done = threading.Event(), []
    first = asyncio.ensure_future(threads.run(lambda: free.wait(5)))
    second = asyncio.ensure_future(threads.run(lambda: done.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    free.set()

    await first
    await threads.run(lambda: done.append("third"))
    threads.close()

    assert done == ["third"]


async def test_a_call_that_waits_for_its_turn_is_cancelled_when_the_threads_are_closed() -> None:
    threads = Threads(1, "t")
    free = threading.Event()
    first = asyncio.ensure_future(threads.run(lambda: free.wait(5)))
    second = asyncio.ensure_future(threads.run(lambda: None))
    await asyncio.sleep(0)

    threads.close()
    free.set()
    async with asyncio.timeout(5):
        await asyncio.wait([first, second])

    assert (first.result(), second.cancelled()) == (True, True)


def test_work_that_never_ends_does_not_hold_up_the_end_of_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING], timeout=20, check=False)

    assert ended.returncode == 0
