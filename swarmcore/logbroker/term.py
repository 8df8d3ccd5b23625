"""The log subscriptions of one term, the nodes that listen for them, and what brings both together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from swarmcore.api.ids import IdSource
from swarmcore.api.logbroker_pb2 import SubscribeLogsRequest, SubscriptionMessage
from swarmcore.api.types_pb2 import NodeStatus
from swarmcore.clock import Clock
from swarmcore.errors import AbortedError, ResourceExhaustedError, UnavailableError
from swarmcore.logbroker.selection import select
from swarmcore.logbroker.subscription import Subscription
from swarmcore.store.changes import Change, StatusChange
from swarmcore.store.inbox import Inbox, feed
from swarmcore.store.store import LeaderStore

log = logging.getLogger("swarmcore.logbroker")

MAX_SUBSCRIPTIONS: Final = 1_000
LISTEN_SECONDS: Final = 3.0
"""For a node that is not known to be lost: agents come to a new leader within this."""
STALL_SECONDS: Final = 600.0
"""A reader may pause, as a pager makes it; one that takes nothing for this long has forgotten its stream."""
TICK_SECONDS: Final = 0.5
CHANGES_PER_SLICE: Final = 2_000

_LOST = (NodeStatus.DOWN, NodeStatus.DISCONNECTED)


class Listener:
    """One node's stream of subscriptions."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.told: dict[str, Subscription] = {}
        self._news: dict[str, Subscription] = {}
        self._wake = asyncio.Event()
        self._failure: Exception | None = None

    def offer(self, subscription: Subscription) -> None:
        """There is something new of this subscription: tell of it, or that it is over."""
        self._news[subscription.id] = subscription
        self._wake.set()

    def end(self, failure: Exception) -> None:
        self._failure = failure
        self._wake.set()

    async def messages(self) -> AsyncIterator[SubscriptionMessage]:
        """What the node is to be told, as it comes. Raises what `end` was given."""
        while self._failure is None:
            while self._news:
                id, subscription = self._news.popitem()
                if id in self.told:
                    if not subscription.owes(self.node_id):
                        del self.told[id]
                        yield SubscriptionMessage(id=id, close=True)
                elif subscription.owes(self.node_id):
                    self.told[id] = subscription
                    yield subscription.message(self.node_id)
                if self._failure is not None:
                    break
            else:
                self._wake.clear()
                await self._wake.wait()
        raise self._failure


class Term:
    """Made when this manager begins to lead, dropped when it ends."""

    def __init__(self, store: LeaderStore, clock: Clock, new_id: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._subscriptions: dict[str, Subscription] = {}
        self._listeners: dict[str, Listener] = {}
        self._busy = asyncio.Event()
        """Set while there are subscriptions."""
        self.is_over = False

    @property
    def subscriptions(self) -> int:
        return len(self._subscriptions)

    def find(self, id: str) -> Subscription | None:
        return self._subscriptions.get(id)

    # Readers

    @contextmanager
    def subscribe(self, request: SubscribeLogsRequest) -> Iterator[Subscription]:
        """A subscription that its nodes are told of; it ends with the block. Raises ResourceExhaustedError."""
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise ResourceExhaustedError(f"{MAX_SUBSCRIPTIONS} log streams are open: end some of them first")
        subscription = Subscription(self._new_id(), request)
        subscription.read_at = subscription.began_at = self._clock.monotonic()
        self._subscriptions[subscription.id] = subscription
        self._busy.set()
        try:
            found = select(self._store.view, request.selector, follow=subscription.follow)
            self._ask(subscription, found.nodes)
            subscription.begin(found.pending)
            yield subscription
        finally:
            del self._subscriptions[subscription.id]
            if not self._subscriptions:
                self._busy.clear()
            subscription.close()
            for listener in self._listeners.values():
                if subscription.id in listener.told:
                    listener.offer(subscription)

    def _ask(self, subscription: Subscription, nodes: frozenset[str]) -> None:
        """Tell the nodes that are new to it; those that don't listen are waited for, or are known to be lost."""
        until = self._clock.monotonic() + LISTEN_SECONDS
        for node_id in subscription.add_nodes(nodes):
            listener = self._listeners.get(node_id)
            if listener is not None:
                listener.offer(subscription)
            else:
                gone = f"node {node_id} is not available"
                subscription.awaited[node_id] = (0.0 if self._is_lost(node_id) else until, gone)
        self._give_up(subscription)

    def _is_lost(self, node_id: str) -> bool:
        node = self._store.view.node.get(node_id)
        return node is None or node.status.state in _LOST

    def _give_up(self, subscription: Subscription) -> None:
        now = self._clock.monotonic()
        for node_id, (until, reason) in list(subscription.awaited.items()):
            if until <= now or self._is_lost(node_id):
                subscription.node_done(node_id, reason)

    def _give_up_silent(self, subscription: Subscription) -> None:
        """Nodes that stand still keep their streams open for long; those that are known to be lost are not waited for.

        One whose lines a reader holds up, or still come, is none of them.
        """
        long_ago = self._clock.monotonic() - LISTEN_SECONDS
        for node_id in subscription.owing:
            if node_id not in self._listeners or not self._is_lost(node_id):
                subscription.heard_again(node_id)
            elif not subscription.outbox.is_full and subscription.last_heard(node_id) < long_ago:
                subscription.silent(node_id, f"node {node_id} does not answer")

    # Nodes

    @contextmanager
    def listen(self, node_id: str) -> Iterator[Listener]:
        """A node listens for the length of the block; a newer stream of it ends the older one."""
        older = self._listeners.get(node_id)
        if older is not None:
            older.end(AbortedError("a newer stream of the same node has taken over"))
            self._left(older)
        listener = self._listeners[node_id] = Listener(node_id)
        for subscription in self._subscriptions.values():
            if subscription.owes(node_id):
                subscription.awaited.pop(node_id, None)
                listener.offer(subscription)
        try:
            yield listener
        finally:
            if self._listeners.get(node_id) is listener:
                del self._listeners[node_id]
                self._left(listener)

    def _left(self, listener: Listener) -> None:
        for subscription in listener.told.values():
            self.lost(subscription, listener.node_id)
        listener.told = {}

    def lost(self, subscription: Subscription, node_id: str) -> None:
        """The node ended before it was done."""
        reason = f"node {node_id} disconnected unexpectedly"
        if subscription.follow and subscription.owes(node_id):
            # Most often it comes again at once.
            subscription.awaited[node_id] = (self._clock.monotonic() + LISTEN_SECONDS, reason)
        else:
            subscription.node_done(node_id, reason)

    # The course of time

    async def run(self) -> None:
        """Follow new tasks, and notice nodes and readers that are not there, until cancelled."""
        while True:
            await self._busy.wait()
            with Inbox(self._store.subscribe(("task",)), self._clock) as inbox:
                self._select_again()
                while self._subscriptions:
                    await inbox.wait(self._clock.monotonic() + TICK_SECONDS)
                    if not await feed(inbox.take(), self._see, changes_per_slice=CHANGES_PER_SLICE):
                        self._select_again()
                    self._tick()

    def _select_again(self) -> None:
        for subscription in self._subscriptions.values():
            if subscription.follow:
                self._ask(subscription, select(self._store.view, subscription.selector, follow=True).nodes)

    def _see(self, change: Change) -> None:
        task = change.new
        if task is None or not task.node_id or type(change) is StatusChange:
            return
        for subscription in self._subscriptions.values():
            if subscription.follow and subscription.concerns(task):
                self._ask(subscription, frozenset((task.node_id,)))

    def _tick(self) -> None:
        stalled = self._clock.monotonic() - STALL_SECONDS
        for subscription in list(self._subscriptions.values()):
            self._give_up(subscription)
            self._give_up_silent(subscription)
            if subscription.read_at < stalled and subscription.outbox.is_full and subscription.reader is not None:
                log.info("a log stream that nobody has read for %g s is closed", STALL_SECONDS)
                subscription.reader.cancel()

    def stop(self) -> None:
        """The term is over: readers and nodes go to the next leader."""
        self.is_over = True
        for listener in self._listeners.values():
            listener.end(UnavailableError("this manager no longer leads: ask again"))
        for subscription in self._subscriptions.values():
            subscription.close()
