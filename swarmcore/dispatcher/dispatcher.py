"""The Dispatcher service: what agents call, and its life as a component that runs while this manager leads."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from random import Random
from typing import Any, Final, Protocol

from grpc.aio import ServicerContext

from swarmcore.api.dispatcher_pb2 import (
    AssignmentsMessage,
    AssignmentsRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    SessionMessage,
    SessionRequest,
    TasksMessage,
    TasksRequest,
    UpdateTaskStatusRequest,
    UpdateTaskStatusResponse,
    UpdateVolumeStatusRequest,
    UpdateVolumeStatusResponse,
)
from swarmcore.api.dispatcher_pb2_grpc import DispatcherServicer
from swarmcore.api.ids import IdSource, new_id
from swarmcore.api.types_pb2 import WeightedPeer
from swarmcore.clock import Clock, SystemClock
from swarmcore.dispatcher.clocks import time_in
from swarmcore.dispatcher.requests import check_session, check_session_id, task_updates, unpublished_volumes
from swarmcore.dispatcher.sessions import MUST_DISCONNECT
from swarmcore.dispatcher.streams import Session
from swarmcore.dispatcher.term import Term
from swarmcore.errors import AbortedError
from swarmcore.store.store import LeaderStore

Context = ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]
SYSTEM_CLOCK: Final = SystemClock()


class CallerLike(Protocol):
    """Who calls, as the interceptor found out."""

    @property
    def node_id(self) -> str: ...
    @property
    def remote_addr(self) -> str: ...


class Dispatcher(DispatcherServicer):
    """Sessions, heartbeats, assignments and status reports of all nodes.

    Registered on the server once. While `run` is not active, every call raises AbortedError.
    """

    name: Final = "dispatcher"

    def __init__(
        self,
        caller_of: Callable[[Context], CallerLike],
        managers: Callable[[], Sequence[WeightedPeer]],
        own_node_id: str,
        clock: Clock = SYSTEM_CLOCK,
        rng: Random | None = None,
        new_id: IdSource = new_id,
        *,
        metadata_of: Callable[[Context], Metadata] = lambda context: context.invocation_metadata() or (),
    ) -> None:
        """`managers` names whom agents may turn to, at least this manager, by addresses that they reach."""
        self._caller_of = caller_of
        self._metadata_of = metadata_of
        self._managers = managers
        self._own_node_id = own_node_id
        self._clock = clock
        self._rng = rng if rng is not None else Random()
        self._new_id = new_id
        self._term: Term | None = None

    async def run(self, store: LeaderStore) -> None:
        """Serve while leading. Ends when cancelled; sends every session to the next leader then."""
        term = Term(
            store=store,
            managers=self._managers,
            own_node_id=self._own_node_id,
            clock=self._clock,
            rng=self._rng,
            new_id=self._new_id,
        )
        self._term = term
        try:
            await term.run()
        finally:
            self._term = None
            await term.stop()

    def _running(self) -> Term:
        if self._term is None:
            raise AbortedError("dispatcher is stopped")
        return self._term

    def _session(self, term: Term, context: Context, session_id: str) -> Session:
        check_session_id(session_id)
        return term.sessions.find(self._caller_of(context).node_id, session_id)

    async def Session(self, request: SessionRequest, context: Context) -> AsyncIterator[SessionMessage]:
        """Register the caller, then tell it of changes of its node, the managers and the keys (SwarmKit: 8.2)."""
        term = self._running()
        check_session(request)
        caller = self._caller_of(context)
        description = request.description if request.HasField("description") else None
        sessions = term.sessions
        session = await sessions.register(caller.node_id, request.session_id, description, _host(caller.remote_addr))
        stream = term.open_session(session)
        try:
            yield sessions.message(session)
            while await stream.wait():
                yield sessions.message(session)
            assert stream.ending is not None
            if stream.ending is MUST_DISCONNECT:
                # One more message: it names the managers to go to.
                yield sessions.message(session)
            raise stream.ending()
        finally:
            term.close(session, stream)

    async def Heartbeat(self, request: HeartbeatRequest, context: Context) -> HeartbeatResponse:
        """Renew the caller's lease (SwarmKit: 8.3)."""
        term = self._running()
        session = self._session(term, context, request.session_id)
        return term.sessions.heartbeat(session, time_in(self._metadata_of(context)))

    async def Assignments(self, request: AssignmentsRequest, context: Context) -> AsyncIterator[AssignmentsMessage]:
        """Everything that the caller shall have, then every change of it (SwarmKit: 8.6).

        Only live tasks: what has ended is not sent to a node that connects, so the set is bounded by what runs.
        """
        term = self._running()
        session = self._session(term, context, request.session_id)
        stream = term.open_assignments(session)
        try:
            yield stream.assigned.complete()
            while True:
                while stream.ending is None and (message := stream.assigned.incremental()) is not None:
                    yield message
                if not await stream.wait():
                    break
            assert stream.ending is not None
            raise stream.ending()
        finally:
            term.close(session, stream)

    async def Tasks(self, request: TasksRequest, context: Context) -> AsyncIterator[TasksMessage]:
        """The full list of the caller's tasks at each change: what agents used before there were assignments."""
        term = self._running()
        session = self._session(term, context, request.session_id)
        stream = term.open_list(session)
        try:
            yield term.routes.task_list(session.node_id)
            while await stream.wait():
                yield term.routes.task_list(session.node_id)
            assert stream.ending is not None
            raise stream.ending()
        finally:
            term.close(session, stream)

    async def UpdateTaskStatus(self, request: UpdateTaskStatusRequest, context: Context) -> UpdateTaskStatusResponse:
        """Take reports in (SwarmKit: 8.4).

        Returns once they are checked and queued, before they are written. A crash can lose what was acknowledged;
        that is safe, since an agent repeats the status of all its tasks at the start of each session, and a crash
        of the leader gives it a new session. Raises PermissionDeniedError when one of the tasks belongs to another
        node, and ResourceExhaustedError when too many wait; nothing of the call is taken over then.
        """
        term = self._running()
        session = self._session(term, context, request.session_id)
        term.reports.put_statuses(session.node_id, task_updates(request))
        return UpdateTaskStatusResponse()

    async def UpdateVolumeStatus(
        self, request: UpdateVolumeStatusRequest, context: Context
    ) -> UpdateVolumeStatusResponse:
        """Take in which volumes the caller no longer mounts."""
        term = self._running()
        session = self._session(term, context, request.session_id)
        term.reports.put_unpublished(session.node_id, unpublished_volumes(request))
        return UpdateVolumeStatusResponse()


def _host(address: str) -> str:
    """The host of `host:port`, `[host]:port` or `host`; nothing if it is not an IP address."""
    for candidate in (address, address.rpartition(":")[0].strip("[]")):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return ""
