"""Everything the dispatcher knows during one term of leadership. Made when it starts, dropped when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.dispatcher_pb2 import HeartbeatResponse, SessionMessage, TasksMessage
from swarmcore.api.ids import IdSource
from swarmcore.api.objects_pb2 import Cluster, Config, Node, Secret, Task, Volume
from swarmcore.api.types_pb2 import NodeDescription, NodeStatus, TaskState, TaskStatus, WeightedPeer
from swarmcore.dispatcher.assignments import AssignmentSet, concerns_node
from swarmcore.dispatcher.leases import (
    DEFAULT_PERIOD,
    GRACE_PERIODS,
    MAX_STALL,
    ORPHAN_SECONDS,
    UNKNOWN_GRACE_PERIODS,
    LeaseKind,
    Leases,
    RegistrationLimit,
    heartbeat_period,
)
from swarmcore.dispatcher.states import (
    DISCONNECTED_MESSAGE,
    DOWN_MESSAGE,
    UNKNOWN_DOWN_MESSAGE,
    UNKNOWN_MESSAGE,
    NodeState,
    mark_ready,
    write_node_state,
    write_orphaned,
    write_task_status,
    write_unpublished,
)
from swarmcore.dispatcher.streams import AssignmentStream, Pump, Session, Stream
from swarmcore.dispatcher.writes import WriteQueue
from swarmcore.errors import (
    AbortedError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    SwarmError,
    UnavailableError,
)
from swarmcore.store.changes import Change, Commit
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

TABLES: Final = ("task", "node", "cluster", "volume")
TICK_SECONDS = 1.0
CLOSING_SECONDS = 5.0
STOP_SECONDS = 0.5
CHANGES_PER_TURN = 1000

NOT_REGISTERED = partial(NotFoundError, "node not registered")
SESSION_INVALID = partial(InvalidArgumentError, "session invalid")
MUST_DISCONNECT = partial(AbortedError, "node must disconnect")
REPLACED = partial(AbortedError, "a newer stream of the same session has taken over")
REMOVED = partial(PermissionDeniedError, "the node was removed from the cluster; leave it, then join again")

_log = logging.getLogger("swarmcore.dispatcher")


class _Reader:
    """What assignments look up."""

    def __init__(self, store: LeaderStore) -> None:
        self._store = store

    def secret(self, id: str) -> Secret | None:
        secret = self._store.view.secret.get(id)
        if secret is not None and secret.spec.HasField("driver"):
            _log.debug("secret %r is left out: no plugin serves driver %r", id, secret.spec.driver.name)
            return None
        return secret

    def config(self, id: str) -> Config | None:
        return self._store.view.config.get(id)


class Term:
    """Sessions, leases, streams and waiting writes of one term of leadership."""

    def __init__(
        self,
        *,
        store: LeaderStore,
        managers: Callable[[], Sequence[WeightedPeer]],
        own_node_id: str,
        clock: Callable[[], float],
        rng: Random,
        new_id: IdSource,
    ) -> None:
        self._store = store
        self._managers = managers
        self._own_node_id = own_node_id
        self._clock = clock
        self._rng = rng
        self._new_id = new_id
        self._loop = asyncio.get_running_loop()
        self._reader = _Reader(store)
        self._pump = Pump()
        self._leases = Leases()
        self._limit = RegistrationLimit()
        self._sessions: dict[str, Session] = {}
        self._assignment_streams: dict[str, AssignmentStream] = {}
        self._task_streams: dict[str, Stream] = {}
        self._closing: deque[tuple[float, Stream]] = deque()
        self._peers: list[WeightedPeer] = list(managers())
        self._statuses = WriteQueue[TaskStatus]("task statuses", self._write_status)
        self._nodes = WriteQueue[NodeState]("node states", self._write_node)
        self._orphans = WriteQueue[None]("orphaned tasks", self._write_orphan)
        self._volumes = WriteQueue[str]("volume reports", self._write_volume)
        self._flush_stamp = Timestamp()

    # The life of the term

    async def run(self) -> None:
        """Serve the term, until cancelled or until a write says that it is over."""
        with self._store.subscribe(TABLES) as subscription:
            self._adopt_nodes()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump.run())
                group.create_task(self._tick())
                for queue in (self._statuses, self._nodes, self._orphans, self._volumes):
                    group.create_task(queue.run(self._store))
                while True:
                    commit = await subscription.get()
                    if isinstance(commit, Commit):
                        await self._route(commit)
                    else:
                        self._resync()

    async def stop(self) -> None:
        """Send every agent to the next leader. Statuses that wait are lost here; agents repeat theirs there."""
        nodes = list(self._sessions)
        for session in self._sessions.values():
            session.end(MUST_DISCONNECT)
        self._sessions.clear()
        if not nodes:
            return
        target = NodeState(NodeStatus.DISCONNECTED, DISCONNECTED_MESSAGE)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._store.batch(nodes, lambda tx, id: write_node_state(tx, id, target))
        except (SwarmError, TimeoutError) as error:
            # Usual: who loses leadership can't write. The next leader marks the nodes itself.
            _log.debug("nodes not marked as disconnected: %s", error)

    def _adopt_nodes(self) -> None:
        """Nobody is trusted to be there, and everybody gets twice the time to say so (SwarmKit: 8.1).

        Time counts from here, when this manager can be reached as the leader, not from the last heartbeat.
        """
        now = self._loop.time()
        nodes = self._store.view.node.all()
        for node in nodes:
            if node.status.state == NodeStatus.DOWN:
                self._leases.grant(node.id, LeaseKind.ORPHAN, ORPHAN_SECONDS, now)
                continue
            period = heartbeat_period(self._configured_period(), len(nodes), self._rng)
            self._leases.grant(node.id, LeaseKind.UNKNOWN, UNKNOWN_GRACE_PERIODS * period, now)
            self._nodes.put(node.id, NodeState(NodeStatus.UNKNOWN, UNKNOWN_MESSAGE))

    async def _tick(self) -> None:
        """Once a second: leases, the list of managers, streams that do not end."""
        while True:
            before = self._loop.time()
            await asyncio.sleep(TICK_SECONDS)
            now = self._loop.time()
            stall = now - before - TICK_SECONDS
            if stall > MAX_STALL:
                _log.warning("this manager stood still for %.1f s; that time is not counted against nodes", stall)
                self._leases.forgive(stall)
            self._expire(now)
            self._notice_managers()
            while self._closing and self._closing[0][0] <= now:
                _, stream = self._closing.popleft()
                if stream.handler is not None and not stream.handler.done():
                    stream.handler.cancel()

    def _expire(self, now: float) -> None:
        for node_id, kind in self._leases.expired(now):
            if kind is LeaseKind.ORPHAN:
                self._orphan(node_id)
                continue
            self._end_session(node_id, NOT_REGISTERED)
            self._limit.forget(node_id)
            if self._store.view.node.get(node_id) is None:
                continue
            message = DOWN_MESSAGE if kind is LeaseKind.SESSION else UNKNOWN_DOWN_MESSAGE
            _log.info("node %r is down: %s", node_id, message)
            self._nodes.put(node_id, NodeState(NodeStatus.DOWN, message))
            self._leases.grant(node_id, LeaseKind.ORPHAN, ORPHAN_SECONDS, now)

    def _orphan(self, node_id: str) -> None:
        for task in self._store.view.task.by("node", node_id):
            if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
                self._orphans.put(task.id, None)

    # Sessions

    async def register(
        self, node_id: str, session_id: str, description: NodeDescription | None, address: str
    ) -> Session:
        """The session of the caller: the one it names if that is its current one, else a new one (SwarmKit: 8.2)."""
        now = self._loop.time()
        current = self._sessions.get(node_id)
        if current is not None and current.id == session_id:
            session = current
        else:
            if self._store.view.node.get(node_id) is None:
                raise SwarmError("node not found")
            if not self._limit.admits(node_id, now):
                raise UnavailableError(f"node {node_id} exceeded rate limit count of registrations")
            self._end_session(node_id, SESSION_INVALID)
            session = self._sessions[node_id] = Session(node_id, self._new_id())
        # Before the write: a node that is being registered is not written down as lost.
        self._grant(session)
        try:
            await self._store.update(lambda tx: mark_ready(tx, node_id, description, address))
        except BaseException:
            if session is not current and self._sessions.get(node_id) is session:
                # The lease stays, so that the node is noticed as lost if it does not come again.
                self._end_session(node_id, NOT_REGISTERED)
            raise
        if session.ending is not None:
            raise session.ending()
        return session

    def session(self, node_id: str, session_id: str) -> Session:
        """The caller's session; raises NotFoundError or InvalidArgumentError when it has none or another."""
        session = self._sessions.get(node_id)
        if session is None:
            raise NOT_REGISTERED()
        if not session_id or session.id != session_id:
            raise SESSION_INVALID()
        return session

    def heartbeat(self, session: Session) -> HeartbeatResponse:
        """Renew the lease; the reply says when the next heartbeat is due."""
        return HeartbeatResponse(period=_duration(self._grant(session)))

    def _grant(self, session: Session) -> float:
        period = heartbeat_period(self._configured_period(), len(self._sessions), self._rng)
        self._leases.grant(session.node_id, LeaseKind.SESSION, GRACE_PERIODS * period, self._loop.time())
        return period

    def _end_session(self, node_id: str, ending: Callable[[], SwarmError]) -> None:
        session = self._sessions.pop(node_id, None)
        if session is None:
            return
        session.end(ending)
        deadline = self._loop.time() + CLOSING_SECONDS
        self._closing.extend((deadline, stream) for stream in session.streams.values())

    def session_message(self, session: Session) -> SessionMessage:
        """All that a session message carries, as it is now."""
        node = self._store.view.node.get(session.node_id)
        if node is None:
            raise REMOVED()
        session.sent_version = node.meta.version.index
        message = SessionMessage(session_id=session.id, node=node, managers=self._peers)
        cluster = self._cluster()
        if cluster is not None:
            message.network_bootstrap_keys.extend(cluster.network_bootstrap_keys)
            message.RootCA = cluster.root_ca.ca_cert
        return message

    # Streams

    def open_stream(self, session: Session, kind: str) -> Stream:
        """A stream of the session; an older one of the same kind ends."""
        stream = Stream(asyncio.current_task())
        if kind == "tasks":
            self._task_streams[session.node_id] = stream
        self._adopt_stream(session, kind, stream)
        return stream

    def open_assignments(self, session: Session) -> AssignmentStream:
        """The node's stream of assignments, with everything that the node shall have waiting in it."""
        assigned = AssignmentSet(session.node_id, self._reader)
        for task in self._store.view.task.by("node", session.node_id):
            if task.status.state >= TaskState.ASSIGNED:
                assigned.put(task)
        for volume in self._store.view.volume.all():
            assigned.put_volume(volume)
        stream = AssignmentStream(asyncio.current_task(), assigned=assigned)
        self._assignment_streams[session.node_id] = stream
        self._adopt_stream(session, "assignments", stream)
        return stream

    def _adopt_stream(self, session: Session, kind: str, stream: Stream) -> None:
        older = session.streams.get(kind)
        session.streams[kind] = stream
        if older is not None:
            older.end(REPLACED)
            self._closing.append((self._loop.time() + CLOSING_SECONDS, older))
        if session.ending is not None:
            stream.end(session.ending)

    def close_stream(self, session: Session, kind: str, stream: Stream) -> None:
        """Forget a stream whose handler ends."""
        stream.handler = None
        if session.streams.get(kind) is stream:
            del session.streams[kind]
        for streams in (self._assignment_streams, self._task_streams):
            if streams.get(session.node_id) is stream:
                del streams[session.node_id]

    def task_list(self, node_id: str) -> TasksMessage:
        """All live tasks of the node."""
        tasks = self._store.view.task.by("node", node_id)
        return TasksMessage(
            tasks=[task for task in tasks if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING]
        )

    # Reports

    def report_tasks(self, session: Session, updates: Sequence[tuple[str, TaskStatus]]) -> None:
        """Queue what an agent reports; raises PermissionDeniedError for the whole call, writing nothing."""
        self._statuses.check_room(len(updates))
        tasks = self._store.view.task
        known: list[tuple[str, TaskStatus]] = []
        for task_id, status in updates:
            task = tasks.get(task_id)
            if task is None:
                continue
            if task.node_id != session.node_id:
                raise PermissionDeniedError("cannot update a task not assigned this node")
            known.append((task_id, status))
        for task_id, status in known:
            self._statuses.put(task_id, status)

    def report_volumes(self, session: Session, unpublished: Sequence[str]) -> None:
        """Queue that the node no longer mounts these volumes."""
        self._volumes.check_room(len(unpublished))
        for volume_id in unpublished:
            if volume_id in self._store.view.volume:
                self._volumes.put(f"{volume_id} {session.node_id}", session.node_id)

    # Changes of the store

    async def _route(self, commit: Commit) -> None:
        for number, change in enumerate(commit.changes, start=1):
            if change.table == "task":
                self._on_task(change)
            elif change.table == "node":
                self._on_node(change)
            elif change.table == "volume":
                self._on_volume(change)
            else:
                self._on_cluster(change)
            if number % CHANGES_PER_TURN == 0:
                await asyncio.sleep(0)

    def _on_task(self, change: Change) -> None:
        new: Task | None = change.new
        if new is None:
            self._drop_task(change.old)
            return
        node_id = new.node_id
        stream = self._assignment_streams.get(node_id)
        listed = self._task_streams.get(node_id) if self._task_streams else None
        if (stream is None and listed is None) or not concerns_node(change.old, new):
            return
        if stream is not None:
            stream.assigned.put(new)
            if stream.assigned.has_pending:
                self._pump.mark(stream)
        if listed is not None:
            self._pump.mark(listed)

    def _drop_task(self, task: Task | None) -> None:
        if task is None:
            return
        stream = self._assignment_streams.get(task.node_id)
        if stream is not None:
            stream.assigned.drop(task.id)
            if stream.assigned.has_pending:
                self._pump.mark(stream)
        listed = self._task_streams.get(task.node_id)
        if listed is not None:
            self._pump.mark(listed)

    def _on_node(self, change: Change) -> None:
        node: Node | None = change.new
        if node is None:
            self._leases.drop(change.id)
            self._limit.forget(change.id)
            self._end_session(change.id, REMOVED)
            return
        session = self._sessions.get(node.id)
        if session is not None and node.meta.version.index > session.sent_version:
            self._push_session(session)

    def _on_volume(self, change: Change) -> None:
        volume: Volume | None = change.new
        if volume is None:
            return
        for status in volume.publish_status:
            stream = self._assignment_streams.get(status.node_id)
            if stream is not None:
                stream.assigned.put_volume(volume)
                if stream.assigned.has_pending:
                    self._pump.mark(stream)

    def _on_cluster(self, change: Change) -> None:
        old: Cluster | None = change.old
        new: Cluster | None = change.new
        if old is None or new is None or _shown(old) != _shown(new):
            self._push_all()

    def _notice_managers(self) -> None:
        peers = list(self._managers())
        if peers != self._peers:
            self._peers = peers
            self._push_all()

    def _push_all(self) -> None:
        for session in self._sessions.values():
            self._push_session(session)

    def _push_session(self, session: Session) -> None:
        stream = session.streams.get("session")
        if stream is not None:
            self._pump.mark(stream)

    def _resync(self) -> None:
        """Changes were missed: compare everything with the store as it is."""
        view = self._store.view
        for node_id in [id for id in self._sessions if id not in view.node]:
            self._leases.drop(node_id)
            self._end_session(node_id, REMOVED)
        for node_id, stream in self._assignment_streams.items():
            assigned = stream.assigned
            for task_id in [id for id in assigned.task_ids if id not in view.task]:
                assigned.drop(task_id)
            for task in view.task.by("node", node_id):
                if task.status.state >= TaskState.ASSIGNED:
                    assigned.put(task)
            for volume in view.volume.all():
                assigned.put_volume(volume)
            if assigned.has_pending:
                self._pump.mark(stream)
        for listed in self._task_streams.values():
            self._pump.mark(listed)
        self._push_all()

    # Writes

    def _write_status(self, tx: Transaction, item: tuple[str, TaskStatus]) -> None:
        write_task_status(tx, item[0], item[1], self._own_node_id, self._now())

    def _write_node(self, tx: Transaction, item: tuple[str, NodeState]) -> None:
        node_id, target = item
        if node_id not in self._sessions:
            write_node_state(tx, node_id, target)

    def _write_orphan(self, tx: Transaction, item: tuple[str, None]) -> None:
        task = tx.task.get(item[0])
        if task is not None and task.node_id not in self._sessions:
            write_orphaned(tx, item[0], self._own_node_id, self._now())

    def _write_volume(self, tx: Transaction, item: tuple[str, str]) -> None:
        write_unpublished(tx, item[0].partition(" ")[0], item[1])

    def _now(self) -> Timestamp:
        self._flush_stamp.FromNanoseconds(int(self._clock() * 1e9))
        return self._flush_stamp

    def _cluster(self) -> Cluster | None:
        return next(iter(self._store.view.cluster.all()), None)

    def _configured_period(self) -> float:
        cluster = self._cluster()
        if cluster is None:
            return DEFAULT_PERIOD
        period = cluster.spec.dispatcher.heartbeat_period
        return float(period.seconds + period.nanos / 1e9)


def _shown(cluster: Cluster) -> tuple[bytes, list[bytes]]:
    """What session messages show of the cluster."""
    return cluster.root_ca.ca_cert, [key.SerializeToString() for key in cluster.network_bootstrap_keys]


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
