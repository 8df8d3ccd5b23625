"""A blocked loop is seen from outside, with what blocks it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from swarmcore.manager.loop_guard import LoopGuard


class _Said(logging.Handler):
    """Frees whoever blocks once the guard has spoken: nobody waits longer than it takes."""

    def __init__(self, free: threading.Event) -> None:
        super().__init__()
        self._free = free
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._free.set()


def plugin_code_that_blocks(free: threading.Event) -> None:
    assert free.wait(20), "nobody noticed"


@pytest.fixture
def free() -> threading.Event:
    return threading.Event()


async def test_what_blocks_the_loop_is_named_from_outside(free: threading.Event) -> None:
    said = _Said(free)
    guard_log = logging.getLogger("swarmcore.manager")
    guard_log.addHandler(said)
    guard = LoopGuard(blocked_seconds=0.2)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(guard.run())
            await asyncio.sleep(0)
            plugin_code_that_blocks(free)
            watching.cancel()
    finally:
        guard_log.removeHandler(said)

    assert "the event loop has been blocked" in said.lines[0]
    assert "plugin_code_that_blocks" in said.lines[0]
    assert (guard.blocks, "goes on" in said.lines[-1]) == (1, True)
    assert guard.longest_seconds >= 0.2


async def test_the_thread_ends_with_the_watch() -> None:
    watching = asyncio.create_task(LoopGuard().run())
    await asyncio.sleep(0)

    watching.cancel()
    await asyncio.wait([watching])

    assert not [thread for thread in threading.enumerate() if thread.name == "loop guard"]
