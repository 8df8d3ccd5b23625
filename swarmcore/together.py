"""Coroutines that live and end together, where the first failure is the failure of all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until one fails or ends, then end the others, the last one first, and raise what the first one raised.

    Each may use those before it, also while it ends. Unlike a TaskGroup this raises the error itself, which the
    command line turns into one line.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        try:
            for task in reversed(tasks):
                task.cancel()
                await asyncio.wait({task})
        finally:
            # Cancelled again: whoever waits has no more patience.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done and not task.cancelled() and (error := task.exception()) is not None:
            raise error
