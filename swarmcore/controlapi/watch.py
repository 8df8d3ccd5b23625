"""The Watch service: what is applied to this manager's store, as it happens (SwarmKit: 11.7).

Served by every manager from its own store, never forwarded. Nothing is replayed: who falls behind, or comes back after
the store went on, is told so and reads the objects again. A manager that has lost its leader hears of nothing, and its
streams end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from swarmcore.api.types_pb2 import Version
from swarmcore.api.watch_pb2 import Object, WatchActionKind, WatchMessage, WatchRequest
from swarmcore.api.watch_pb2_grpc import WatchServicer
from swarmcore.clock import Clock
from swarmcore.controlapi.redact import PUBLIC
from swarmcore.controlapi.selectors import CREATE, REMOVE, UPDATE, Selection, selection
from swarmcore.controlapi.validate.bounds import check_request
from swarmcore.errors import AbortedError, OutOfRangeError, ResourceExhaustedError, UnavailableError
from swarmcore.store.changes import Change, Commit, Resync, Subscription
from swarmcore.store.store import Store

WAITING_CHANGES: Final = 50_000
"""Changes that wait for one slow watcher before its stream is ended."""
MAX_WATCHES: Final = 1_000
MESSAGE_BYTES: Final = 3 * 1024 * 1024
"""A message is sent before it grows beyond this; gRPC clients take 4 MiB unless told otherwise."""
SLICE_SECONDS: Final = 0.005
LEADERLESS_SECONDS: Final = 10.0
"""For so long there may be no leader: an election takes less."""
LOOK_SECONDS: Final = 0.5
LEADERLESS: Final = "this manager has no leader, and hears of no changes: watch through another one, or try again later"

Event = WatchMessage.Event


class WatchService(WatchServicer):
    """Registered once on a manager's servers."""

    def __init__(self, store: Store, *, waiting_changes: int = WAITING_CHANGES) -> None:
        self._store = store
        self._waiting_changes = waiting_changes
        self.watches = 0
        """Streams that are open now."""
        self._open: set[Subscription] = set()
        self._is_leaderless = False

    async def run(self, leaderless_seconds: Callable[[], float], clock: Clock) -> None:
        """End the streams when there has been no leader for long; until cancelled."""
        while True:
            await clock.sleep_until(clock.monotonic() + LOOK_SECONDS)
            self._is_leaderless = leaderless_seconds() >= LEADERLESS_SECONDS
            if self._is_leaderless:
                for subscription in self._open:
                    subscription.offer(Resync(self._store.version))

    async def Watch(self, request: WatchRequest, context: object) -> AsyncIterator[WatchMessage]:
        """An empty message once the watch is in place, then the events of each transaction that has any.

        Ends with AbortedError when events were lost: read the objects again, and watch anew. Ends with, or raises,
        UnavailableError where this manager has no leader.
        """
        check_request(request)
        wanted = selection(request.entries)
        if request.HasField("resume_from"):
            self._check_resume(request.resume_from)
        if self._is_leaderless:
            raise UnavailableError(LEADERLESS)
        if self.watches >= MAX_WATCHES:
            raise ResourceExhaustedError(f"{MAX_WATCHES} watches are open already: end some of them")
        self.watches += 1
        try:
            # No await between the check above and this: nothing is missed.
            with self._store.subscribe(wanted.by_table, self._waiting_changes) as subscription:
                self._open.add(subscription)
                try:
                    yield WatchMessage()
                    while True:
                        commit = await subscription.get()
                        if isinstance(commit, Resync):
                            raise self._why_ended()
                        async for message in _messages(commit, wanted, request.include_old_object):
                            yield message
                finally:
                    self._open.discard(subscription)
        finally:
            self.watches -= 1

    def _why_ended(self) -> AbortedError | UnavailableError:
        if self._is_leaderless:
            return UnavailableError(LEADERLESS)
        return AbortedError("events were lost: read the objects again, and start a new watch")

    def _check_resume(self, version: Version) -> None:
        """Only what is still the present can be gone on from: no manager keeps what was."""
        present = self._store.version
        if version.index < present:
            raise OutOfRangeError(
                f"resume version is compacted: resume_from is {version.index} and the store is at {present}: "
                "read the objects again, and watch without resume_from"
            )
        if version.index > present:
            raise OutOfRangeError(
                f"resume version is out of range: resume_from is {version.index} and the store is at {present} only"
            )


async def _messages(commit: Commit, wanted: Selection, with_old: bool) -> AsyncIterator[WatchMessage]:
    """The events of one transaction: in one message, or in several where one would be too large.

    Only the last has the version, so that nobody resumes from the middle of a transaction.
    """
    message, size = WatchMessage(), 0
    started = time.perf_counter()
    for change in commit.changes:
        event = _event(change, wanted, with_old)
        if event is None:
            continue
        event_size = event.ByteSize()
        if size and size + event_size > MESSAGE_BYTES:
            yield message
            message, size = WatchMessage(), 0
        message.events.append(event)
        size += event_size
        if time.perf_counter() - started > SLICE_SECONDS:
            await asyncio.sleep(0)
            started = time.perf_counter()
    if size:
        message.version.index = commit.version
        yield message


def _event(change: Change, wanted: Selection, with_old: bool) -> Event | None:
    if change.new is None:
        action, obj = REMOVE, change.old
    else:
        action, obj = (CREATE if change.old is None else UPDATE), change.new
    if not wanted.accepts(change.table, action, obj):
        return None
    event = Event(action=WatchActionKind.ValueType(action), object=_object(change.table, obj))
    if with_old and action == UPDATE:
        event.old_object.CopyFrom(_object(change.table, change.old))
    return event


def _object(table: str, obj: Any) -> Object:
    shown = PUBLIC.get(table)
    message = Object()
    getattr(message, table).CopyFrom(obj if shown is None else shown(obj))
    return message
