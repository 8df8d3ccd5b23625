"""One direction of a stream between two calls: a bounded queue that either side can end, with a reason."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MAX_MESSAGES: Final = 32


class Channel(Generic[T]):
    """Filled by one task, emptied by another."""

    def __init__(self, most: int = MAX_MESSAGES) -> None:
        self._most = most
        self._messages: deque[T] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._is_closed = False
        self._failure: Exception | None = None

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= self._most

    async def put(self, message: T) -> None:
        """Wait for room and put it in. After `close` messages are dropped: nobody takes them."""
        while self.is_full and not self._is_closed:
            self._room.clear()
            await self._room.wait()
        self.put_at_once(message)

    def put_at_once(self, message: T) -> None:
        """Put it in whether there is room or not."""
        if not self._is_closed:
            self._messages.append(message)
            self._news.set()

    async def get(self) -> T | None:
        """The next message; None at the end. Raises what `close` was given, after what waits was taken."""
        while not self._messages:
            if self._is_closed:
                if self._failure is not None:
                    raise self._failure
                return None
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        self._room.set()
        return message

    def close(self, failure: Exception | None = None) -> None:
        """Nothing more comes. The first reason counts."""
        if self._is_closed:
            return
        self._is_closed = True
        self._failure = failure
        self._news.set()
        self._room.set()
