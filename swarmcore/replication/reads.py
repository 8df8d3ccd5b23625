"""Reads that have to see everything agreed before them: asked, asked again, answered (Raft: ReadIndex)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarmcore.errors import UnavailableError
from swarmcore.raft.events import ReadDemanded

AGAIN_SECONDS = 1.0


class Reads:
    """The questions that are open."""

    def __init__(self, ask: Callable[[ReadDemanded], object]) -> None:
        """`ask` gives a question to the machine."""
        self._ask = ask
        self._open: dict[int, asyncio.Future[int]] = {}
        self._count = 0

    @property
    def is_empty(self) -> bool:
        return not self._open

    async def index(self) -> int:
        """The index from which on a read may be answered. Asked for again: what goes to a leader may be lost.

        Raises UnavailableError where there is no leader to ask; waits for as long as it says nothing.
        """
        while True:
            read = self._count = self._count + 1
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._open[read] = answer
            try:
                self._ask(ReadDemanded(read))
                await asyncio.wait([answer], timeout=AGAIN_SECONDS)
                if answer.done():
                    return answer.result()
            finally:
                del self._open[read]

    def answer(self, read: int, index: int | None) -> None:
        """The machine's answer; None: nobody could confirm the read."""
        future = self._open.get(read)
        if future is None or future.done():
            return
        if index is None:
            future.set_exception(UnavailableError("no leader could confirm the read: ask again"))
        else:
            future.set_result(index)

    def end(self, reason: str) -> None:
        """No question is answered any more."""
        for future in self._open.values():
            if not future.done():
                future.set_exception(UnavailableError(reason))
