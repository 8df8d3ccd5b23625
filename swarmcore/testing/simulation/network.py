"""The network between the members: it loses, delays, doubles and reorders, and it can be cut in any direction."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from swarmcore.raft.messages import Message

_DELAY_SECONDS = 0.002


class Network:
    """Carries messages from member to member. A link is a pair: sender, receiver."""

    def __init__(
        self,
        chance: Random,
        deliver: Callable[[Message], None],
        lost: Callable[[Message], None],
        counts: Counter[str] | None = None,
    ) -> None:
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._lost = lost
        self._counts = Counter[str]() if counts is None else counts
        self._sent = 0
        self._newest: dict[tuple[int, int], int] = {}
        """The last message sent of those that arrived, by link."""
        self.cut: set[tuple[int, int]] = set()
        self.loss = 0.0
        self.lost_kinds: tuple[type, ...] = ()
        """Messages of these kinds are lost, but for a few."""
        self.breaking = 0.0
        """Each part of a snapshot breaks the stream with this likelihood."""
        self.doubling = 0.0
        self.delay_seconds = 0.0
        """Added to a share of the messages, so that later ones overtake them."""

    def send(self, message: Message) -> None:
        chance = self._chance
        if self.is_cut(message.sender, message.to):
            self._counts["message cut off"] += 1
            # Not now: the sender is in the middle of a step.
            self._loop.call_soon(self._lost, message)
            return
        if self.loss and chance.random() < self.loss:
            self._counts["message lost"] += 1
            self._loop.call_soon(self._lost, message)
            return
        if self.lost_kinds and isinstance(message, self.lost_kinds) and chance.random() < 0.9:
            self._counts["message lost"] += 1
            return
        self._sent += 1
        self._loop.call_later(self.seconds(), self._arrive, message, self._sent)
        if self.doubling and chance.random() < self.doubling:
            self._counts["message doubled"] += 1
            self._loop.call_later(self.seconds() * 20, self._arrive, message, self._sent)

    def seconds(self) -> float:
        """How long the next message is under way."""
        seconds = _DELAY_SECONDS * self._chance.random()
        if self.delay_seconds and self._chance.random() < 0.3:
            seconds += self.delay_seconds * self._chance.random()
            self._counts["message delayed"] += 1
        return seconds

    def is_cut(self, sender: int, to: int) -> bool:
        return (sender, to) in self.cut

    def _arrive(self, message: Message, number: int) -> None:
        link = (message.sender, message.to)
        if link in self.cut:
            self._counts["message cut off"] += 1
            return
        newest = self._newest.get(link, 0)
        if number < newest:
            self._counts["message overtaken"] += 1
        self._newest[link] = max(number, newest)
        self._deliver(message)

    # Partitions

    def heal(self) -> None:
        self.cut.clear()
        self.lost_kinds = ()

    def isolate(self, some: Iterable[int], others: Iterable[int]) -> None:
        """Cut every link between two sides."""
        others = list(others)
        for one in some:
            self.cut |= {(one, other) for other in others} | {(other, one) for other in others}

    def cut_one_way(self, senders: Iterable[int], receivers: Iterable[int]) -> None:
        receivers = list(receivers)
        self.cut |= {(one, other) for one in senders for other in receivers if one != other}

    def make_ring(self, ids: list[int]) -> None:
        """Each member reaches its two neighbours only: everybody sees a majority of five, nobody the same."""
        size = len(ids)
        for at, one in enumerate(ids):
            for step in range(2, size - 1):
                self.cut.add((one, ids[(at + step) % size]))
