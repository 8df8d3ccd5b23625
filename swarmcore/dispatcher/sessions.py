"""Which nodes have a session in this term, until when, and what session messages tell them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.brake import DEFAULT as DEFAULT_BRAKE
from swarmcore.api.brake import LABEL as BRAKE_LABEL
from swarmcore.api.brake import Brake, parse_brake
from swarmcore.api.dispatcher_pb2 import HeartbeatResponse, SessionMessage
from swarmcore.api.ids import IdSource
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.types_pb2 import NodeDescription, NodeStatus, WeightedPeer
from swarmcore.clock import Clock
from swarmcore.dispatcher.brake import BrakeWatch
from swarmcore.dispatcher.clocks import ClockWatch
from swarmcore.dispatcher.leases import (
    DEFAULT_PERIOD,
    GRACE_PERIODS,
    ORPHAN_SECONDS,
    UNKNOWN_GRACE_PERIODS,
    LeaseKind,
    Leases,
    RegistrationLimit,
    heartbeat_period,
)
from swarmcore.dispatcher.states import (
    DOWN_MESSAGE,
    UNKNOWN_DOWN_MESSAGE,
    UNKNOWN_MESSAGE,
    NodeState,
    mark_ready,
)
from swarmcore.dispatcher.streams import Ending, Pump, Session, Stream
from swarmcore.errors import (
    AbortedError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    SwarmError,
    UnavailableError,
)
from swarmcore.store.store import LeaderStore

CLOSING_SECONDS = 5.0

NOT_REGISTERED = partial(NotFoundError, "node not registered")
SESSION_INVALID = partial(InvalidArgumentError, "session invalid")
MUST_DISCONNECT = partial(AbortedError, "node must disconnect")
REPLACED = partial(AbortedError, "a newer stream of the same session has taken over")
REMOVED = partial(PermissionDeniedError, "the node was removed from the cluster")

_log = logging.getLogger("swarmcore.dispatcher")


class Sessions:
    """The sessions of one term, with the leases that end them and the streams they hold open."""

    def __init__(
        self,
        store: LeaderStore,
        *,
        pump: Pump,
        clock: Clock,
        rng: Random,
        new_id: IdSource,
        managers: Callable[[], Sequence[WeightedPeer]],
        on_state: Callable[[str, NodeState], None],
        on_abandoned: Callable[[str], None],
        on_clock: Callable[[str, str], None],
    ) -> None:
        """`on_state` is told of nodes that are lost, `on_abandoned` of those that have been lost for a day, `on_clock`
        of what a node's status is to say of its clock.
        """
        self._store = store
        self._pump = pump
        self._clock = clock
        self._rng = rng
        self._new_id = new_id
        self._managers = managers
        self._peers = list(managers())
        self._on_state = on_state
        self._on_abandoned = on_abandoned
        self._on_clock = on_clock
        self._leases = Leases()
        self._limit = RegistrationLimit()
        self._clocks = ClockWatch()
        self._brake = BrakeWatch(list(store.view.node.all()), clock.monotonic())
        self._by_node: dict[str, Session] = {}
        self._closing: deque[tuple[float, Stream]] = deque()
        """Streams that were told to end, and when their handlers are cancelled."""

    def __len__(self) -> int:
        return len(self._by_node)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._by_node

    @property
    def node_ids(self) -> list[str]:
        return list(self._by_node)

    # The life of a session

    async def register(
        self, node_id: str, session_id: str, description: NodeDescription | None, address: str
    ) -> Session:
        """The session of the caller: the one it names if that is its current one, else a new one (SwarmKit: 8.2)."""
        current = self._by_node.get(node_id)
        before: Node | None = None
        if current is not None and current.id == session_id:
            session = current
        else:
            before = self._store.view.node.get(node_id)
            if before is None:
                raise SwarmError("node not found")
            if not self._limit.admits(node_id, self._clock.monotonic()):
                raise UnavailableError(f"node {node_id} exceeded rate limit count of registrations")
            self.end(node_id, SESSION_INVALID)
            session = self._by_node[node_id] = Session(node_id, self._new_id())
        # Before the write: a node that is being registered is not written down as lost.
        self._grant(session)
        self._clocks.forget(node_id)
        try:
            await self._store.update(lambda tx: mark_ready(tx, node_id, description, address))
        except BaseException:
            if session is not current and self._by_node.get(node_id) is session:
                # The lease stays, so that the node is noticed as lost if it does not come again.
                self.end(node_id, NOT_REGISTERED)
            raise
        if session.ending is not None:
            raise session.ending()
        self._say_ready(before)
        return session

    def _say_ready(self, before: Node | None) -> None:
        """One line for a node that is new, and for one that was down; none for each of all after a change of leader."""
        now = None if before is None else self._store.view.node.get(before.id)
        if before is None or now is None:
            return
        if not before.HasField("description"):
            _log.info("node %s is ready for the first time", _name(now))
        elif before.status.state == NodeStatus.DOWN:
            _log.info("node %s is ready again", _name(now))

    def find(self, node_id: str, session_id: str) -> Session:
        """The caller's session; raises NotFoundError or InvalidArgumentError when it has none or another."""
        session = self._by_node.get(node_id)
        if session is None:
            raise NOT_REGISTERED()
        if not session_id or session.id != session_id:
            raise SESSION_INVALID()
        return session

    def heartbeat(self, session: Session, time: float | None = None) -> HeartbeatResponse:
        """Renew the lease; the reply says when the next heartbeat is due. `time` is the node's own, where it says."""
        if time is not None:
            self._compare_clocks(session.node_id, time)
        period = Duration()
        period.FromNanoseconds(int(self._grant(session) * 1e9))
        return HeartbeatResponse(period=period)

    def _compare_clocks(self, node_id: str, time: float) -> None:
        node = self._store.view.node.get(node_id)
        if node is not None:
            message = self._clocks.heard(node_id, _name(node), time, self._clock.now())
            if message is not None:
                self._on_clock(node_id, message)

    def _grant(self, session: Session) -> float:
        period = heartbeat_period(self._configured_period(), len(self._by_node), self._rng)
        self._leases.grant(session.node_id, LeaseKind.SESSION, GRACE_PERIODS * period, self._clock.monotonic())
        return period

    def end(self, node_id: str, ending: Ending) -> None:
        """End the node's session if it has one; its calls and streams raise `ending`."""
        session = self._by_node.pop(node_id, None)
        if session is not None:
            session.end(ending)
            for stream in session.streams.values():
                self._close_later(stream)

    async def end_all(self, ending: Ending, seconds: float) -> None:
        """End every session, and cancel the handlers that take longer than this to say so."""
        handlers = [stream.handler for _, stream in self._closing]
        for session in self._by_node.values():
            session.end(ending)
            handlers.extend(stream.handler for stream in session.streams.values())
        self._by_node.clear()
        running = [handler for handler in handlers if handler is not None and not handler.done()]
        if running:
            _, late = await asyncio.wait(running, timeout=seconds)
            for handler in late:
                handler.cancel()

    def forget(self, node_id: str) -> None:
        """The node is no longer in the cluster."""
        self._leases.drop(node_id)
        self._clocks.forget(node_id)
        self._limit.forget(node_id)
        self.end(node_id, REMOVED)

    def forget_missing(self) -> None:
        """Forget every node that the store does not have."""
        nodes = self._store.view.node
        for node_id in [id for id in self._by_node if id not in nodes]:
            self.forget(node_id)

    # Streams

    def adopt(self, session: Session, kind: str, stream: Stream) -> None:
        """The session has this stream now; an older one of the same kind ends."""
        older = session.streams.get(kind)
        session.streams[kind] = stream
        if older is not None:
            older.end(REPLACED)
            self._close_later(older)
        if session.ending is not None:
            stream.end(session.ending)

    def _close_later(self, stream: Stream) -> None:
        """A handler that waits for a peer which reads no more has to be cancelled."""
        self._closing.append((self._clock.monotonic() + CLOSING_SECONDS, stream))

    # Time

    def adopt_nodes(self) -> None:
        """Nobody is trusted to be there, and everybody gets twice the time to say so (SwarmKit: 8.1).

        Time counts from here, when this manager can be reached as the leader, not from the last heartbeat.
        """
        now = self._clock.monotonic()
        nodes = self._store.view.node.all()
        for node in nodes:
            if node.status.state == NodeStatus.DOWN:
                self._leases.grant(node.id, LeaseKind.ORPHAN, ORPHAN_SECONDS, now)
                continue
            period = heartbeat_period(self._configured_period(), len(nodes), self._rng)
            self._leases.grant(node.id, LeaseKind.UNKNOWN, UNKNOWN_GRACE_PERIODS * period, now)
            self._on_state(node.id, NodeState(NodeStatus.UNKNOWN, UNKNOWN_MESSAGE))

    def forgive(self, seconds: float) -> None:
        """Don't count this time against anyone: this manager was not listening."""
        self._leases.forgive(seconds)

    def tick(self) -> None:
        """To be called about once a second: leases, the list of managers, streams that do not end."""
        now = self._clock.monotonic()
        self._expire(now)
        self._maybe_release(now)
        self._notice_managers()
        while self._closing and self._closing[0][0] <= now:
            _, stream = self._closing.popleft()
            if stream.handler is not None and not stream.handler.done():
                stream.handler.cancel()

    def _expire(self, now: float) -> None:
        nodes = self._store.view.node
        lost: dict[str, str] = {}
        for node_id, kind in self._leases.expired(now):
            if kind is LeaseKind.ORPHAN:
                self._on_abandoned(node_id)
                continue
            self.end(node_id, NOT_REGISTERED)
            self._limit.forget(node_id)
            if node_id in nodes:
                lost[node_id] = DOWN_MESSAGE if kind is LeaseKind.SESSION else UNKNOWN_DOWN_MESSAGE
        if not lost:
            return
        held = self._brake.lost(list(lost), set(self._leases.silent(now)), nodes, self._brake_setting(), now)
        for node_id, message in {**lost, **held}.items():
            node = nodes.get(node_id)
            if node_id in lost and node is not None:
                _log.info("node %s is down: %s", _name(node), lost[node_id])
                self._leases.grant(node_id, LeaseKind.ORPHAN, ORPHAN_SECONDS, now)
            self._on_state(node_id, NodeState(NodeStatus.DOWN, message))

    def _maybe_release(self, now: float) -> None:
        """Let tasks go that were held for long enough, or whose cluster is nearly whole again."""
        if self._brake.is_on:
            for node_id in self._brake.released(self._store.view.node, self._by_node, self._brake_setting(), now):
                self._on_state(node_id, NodeState(NodeStatus.DOWN, DOWN_MESSAGE))

    def _brake_setting(self) -> Brake:
        cluster = self._cluster()
        try:
            return (
                DEFAULT_BRAKE if cluster is None else parse_brake(cluster.spec.annotations.labels.get(BRAKE_LABEL, ""))
            )
        except ValueError:
            return DEFAULT_BRAKE  # written by a version that knew more

    def _notice_managers(self) -> None:
        peers = list(self._managers())
        # An agent forgets every manager that is not listed, so an empty list would strand it for good.
        if peers and peers != self._peers:
            self._peers = peers
            self.push_all()

    # Session messages

    def message(self, session: Session) -> SessionMessage:
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

    def push(self, node_id: str, version: int) -> None:
        """The node's object has this version now: tell the node, unless it knows."""
        session = self._by_node.get(node_id)
        if session is not None and version > session.sent_version:
            self._push(session)

    def push_all(self) -> None:
        """Send every node a session message."""
        for session in self._by_node.values():
            self._push(session)

    def _push(self, session: Session) -> None:
        stream = session.streams.get("session")
        if stream is not None:
            self._pump.mark(stream)

    def _cluster(self) -> Cluster | None:
        return next(iter(self._store.view.cluster.all()), None)

    def _configured_period(self) -> float:
        cluster = self._cluster()
        if cluster is None:
            return DEFAULT_PERIOD
        period = cluster.spec.dispatcher.heartbeat_period
        return float(period.seconds + period.nanos / 1e9)


def _name(node: Node) -> str:
    """As an operator knows it, and as `swarmctl` takes it."""
    hostname = node.description.hostname
    return f"{hostname!r} ({node.id})" if hostname else node.id
