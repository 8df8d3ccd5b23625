"""Everything the dispatcher knows during one term of leadership. Made when it starts, dropped when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from swarmcore.api.ids import IdSource
from swarmcore.api.objects_pb2 import Cluster
from swarmcore.api.types_pb2 import NodeStatus, WeightedPeer
from swarmcore.clock import Clock
from swarmcore.dispatcher.leases import MAX_STALL
from swarmcore.dispatcher.reports import Reports
from swarmcore.dispatcher.routes import Routes
from swarmcore.dispatcher.sessions import MUST_DISCONNECT, Sessions
from swarmcore.dispatcher.states import DISCONNECTED_MESSAGE, NodeState, write_node_state
from swarmcore.dispatcher.streams import AssignmentStream, Pump, Session, Stream
from swarmcore.errors import NotLeaderError, SwarmError
from swarmcore.store.changes import Change, Commit
from swarmcore.store.store import LeaderStore

TABLES: Final = ("task", "node", "cluster", "volume")
TICK_SECONDS = 1.0
STOP_SECONDS = 0.5
CHANGES_PER_TURN = 500

_log = logging.getLogger("swarmcore.dispatcher")


class Term:
    """Sessions, streams and waiting writes of one term of leadership."""

    def __init__(
        self,
        *,
        store: LeaderStore,
        managers: Callable[[], Sequence[WeightedPeer]],
        own_node_id: str,
        clock: Clock,
        rng: Random,
        new_id: IdSource,
    ) -> None:
        self._store = store
        self._clock = clock
        self._pump = Pump(clock)
        self.routes = Routes(store, self._pump)
        self.reports = Reports(
            store, own_node_id=own_node_id, clock=clock, has_session=lambda node_id: node_id in self.sessions
        )
        self.sessions = Sessions(
            store,
            pump=self._pump,
            clock=clock,
            rng=rng,
            new_id=new_id,
            managers=managers,
            on_state=self.reports.put_node,
            on_abandoned=self.reports.put_orphans,
            on_clock=self.reports.put_clock,
        )

    # The life of the term

    async def run(self) -> None:
        """Serve the term, until cancelled. Raises NotLeaderError once a write says that it is over."""
        try:
            with self._store.subscribe(TABLES) as subscription:
                self.sessions.adopt_nodes()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump.run())
                    group.create_task(self._tick())
                    for loop in self.reports.loops:
                        group.create_task(loop())
                    while True:
                        commit = await subscription.get()
                        if isinstance(commit, Commit):
                            await self._route(commit)
                        else:
                            self._resync()
        except ExceptionGroup as failures:
            if failures.subgroup(NotLeaderError) is not None:
                # What else failed is a consequence of the same.
                raise NotLeaderError(f"leadership of term {self._store.term} is over") from failures
            raise

    async def stop(self) -> None:
        """Send every agent to the next leader. Statuses that wait are lost here; agents repeat theirs there."""
        nodes = self.sessions.node_ids
        await self.sessions.end_all(MUST_DISCONNECT, STOP_SECONDS)
        if not nodes:
            return
        target = NodeState(NodeStatus.DISCONNECTED, DISCONNECTED_MESSAGE)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._store.batch(nodes, lambda tx, id: write_node_state(tx, id, target))
        except (SwarmError, TimeoutError) as error:
            # Usual: who loses leadership can't write. The next leader marks the nodes itself.
            _log.debug("nodes not marked as disconnected: %s", error)

    async def _tick(self) -> None:
        clock = self._clock
        while True:
            due = clock.monotonic() + TICK_SECONDS
            await clock.sleep_until(due)
            stall = clock.monotonic() - due
            if stall > MAX_STALL:
                _log.warning("this manager stood still for %.1f s; that time is not counted against nodes", stall)
                self.sessions.forgive(stall)
            self.sessions.tick()

    # Streams

    def open_session(self, session: Session) -> Stream:
        """The stream of session messages; an older one of the session ends. So do the next two."""
        stream = Stream(asyncio.current_task())
        self.sessions.adopt(session, "session", stream)
        return stream

    def open_assignments(self, session: Session) -> AssignmentStream:
        stream = self.routes.open_assignments(session)
        self.sessions.adopt(session, "assignments", stream)
        return stream

    def open_list(self, session: Session) -> Stream:
        stream = self.routes.open_list(session)
        self.sessions.adopt(session, "tasks", stream)
        return stream

    def close(self, session: Session, stream: Stream) -> None:
        """Forget a stream whose handler ends."""
        stream.handler = None
        session.release(stream)
        self.routes.close(session, stream)

    # Changes of the store

    async def _route(self, commit: Commit) -> None:
        routes = self.routes
        for number, change in enumerate(commit.changes, start=1):
            if change.table == "task":
                routes.on_task(change)
            elif change.table == "node":
                self._on_node(change)
            elif change.table == "volume":
                routes.on_volume(change)
            else:
                self._on_cluster(change)
            if number % CHANGES_PER_TURN == 0:
                await asyncio.sleep(0)

    def _on_node(self, change: Change) -> None:
        if change.new is None:
            self.sessions.forget(change.id)
        else:
            self.sessions.push(change.id, change.new.meta.version.index)

    def _on_cluster(self, change: Change) -> None:
        old: Cluster | None = change.old
        new: Cluster | None = change.new
        if old is None or new is None or _shown(old) != _shown(new):
            self.sessions.push_all()

    def _resync(self) -> None:
        self.sessions.forget_missing()
        self.routes.resync()
        self.sessions.push_all()


def _shown(cluster: Cluster) -> tuple[bytes, list[bytes]]:
    """What session messages show of the cluster."""
    return cluster.root_ca.ca_cert, [key.SerializeToString() for key in cluster.network_bootstrap_keys]
