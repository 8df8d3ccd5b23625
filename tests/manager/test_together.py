"""Coroutines that live and end together."""

from __future__ import annotations

import asyncio

import pytest

from swarmcore.testing.clock import let_the_loop_run
from swarmcore.together import run_together


async def test_the_first_failure_ends_the_others_and_is_raised_as_it_is() -> None:
    ended: list[str] = []

    async def lasting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("lasting")

    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        await run_together(lasting(), failing())

    assert ended == ["lasting"]


async def test_cancelling_it_cancels_all_and_waits_for_them() -> None:
    ended: list[int] = []

    async def slow_to_end(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    whole = asyncio.create_task(run_together(slow_to_end(1), slow_to_end(2)))
    await let_the_loop_run()
    whole.cancel()

    with pytest.raises(asyncio.CancelledError):
        await whole
    assert ended == [2, 1]


async def test_what_ends_can_still_use_what_came_before_it() -> None:
    is_serving, answers = False, []

    async def base() -> None:
        nonlocal is_serving
        is_serving = True
        try:
            await asyncio.Event().wait()
        finally:
            is_serving = False

    async def user() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            answers.append(is_serving)

    whole = asyncio.create_task(run_together(base(), user()))
    await let_the_loop_run()
    whole.cancel()

    with pytest.raises(asyncio.CancelledError):
        await whole
    assert answers == [True]


async def test_who_is_cancelled_twice_waits_for_no_order() -> None:
    ended: list[str] = []

    async def quick() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("quick")

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        finally:
            ended.append("stubborn")

    whole = asyncio.create_task(run_together(quick(), stubborn()))
    await let_the_loop_run()
    whole.cancel()
    await let_the_loop_run()
    assert ended == []
    whole.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(whole, 5)
    assert sorted(ended) == ["quick", "stubborn"]
