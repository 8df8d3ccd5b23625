"""One session with one manager: registered once, then heartbeats, assignments, reports and logs over one channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from swarmcore.agent.access import AccessServer
from swarmcore.agent.logs import LogPublisher
from swarmcore.agent.reporter import Report, Reporter
from swarmcore.agent.worker import Worker
from swarmcore.api.dispatcher_pb2 import (
    AssignmentsMessage,
    AssignmentsRequest,
    HeartbeatRequest,
    SessionMessage,
    SessionRequest,
    TasksRequest,
    UpdateTaskStatusRequest,
)
from swarmcore.api.dispatcher_pb2_grpc import DispatcherStub
from swarmcore.api.metadata import TIME
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.clock import Clock
from swarmcore.errors import PermissionDeniedError, UnavailableError
from swarmcore.together import run_together

log = logging.getLogger("swarmcore.agent")

REGISTER_SECONDS: Final = 5.0
HEARTBEAT_SECONDS: Final = 5.0
REPORT_SECONDS: Final = 15.0
MIN_PERIOD_SECONDS: Final = 0.1
MAX_GAPS: Final = 3

OnMessage = Callable[[SessionMessage], Awaitable[None]]


class SessionError(UnavailableError):
    """The session is over; open another one, here or with another manager."""


class RegisterAgainError(SessionError):
    """Nothing failed: register again, under the same session id."""


def words_of(error: grpc.aio.AioRpcError) -> str:
    """A gRPC error in one line; that a manager is not available its own words say better."""
    details = " ".join((error.details() or "").split())
    code = error.code()
    if details and code is grpc.StatusCode.UNAVAILABLE:
        return details
    return f"{code.name}: {details}" if details else str(code.name)


class Session:
    """Ends only with an error, or when cancelled. What the worker runs goes on whatever happens here.

    Commands beside tasks go on after that until `access` is closed.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        worker: Worker,
        reporter: Reporter,
        clock: Clock,
        node_id: str,
        on_message: OnMessage,
        on_stock: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_stock` is called when the manager turns out to be one of SwarmKit's; what it raises ends the session."""
        self._stub = DispatcherStub(channel)
        self._worker = worker
        self._reporter = reporter
        self._clock = clock
        self._on_message = on_message
        self._logs = LogPublisher(channel, worker, node_id, clock)
        self.access = AccessServer(channel, worker, node_id, clock, on_stock)
        self._call: grpc.aio.UnaryStreamCall[SessionRequest, SessionMessage] | None = None
        self.id = ""

    async def register(self, description: NodeDescription, session_id: str) -> None:
        """Ask for a session, or for the one of `session_id` again. Raises SessionError."""
        self._call = self._stub.Session(SessionRequest(description=description, session_id=session_id))
        try:
            async with asyncio.timeout(REGISTER_SECONDS):
                first = await self._call.read()
        except TimeoutError:
            raise SessionError("session initiation timed out") from None
        except grpc.aio.AioRpcError as error:
            raise SessionError(words_of(error)) from error
        if not isinstance(first, SessionMessage):
            raise SessionError("the manager ended the session before its first message")
        self.id = first.session_id
        await self._on_message(first)

    async def run(self, until: Coroutine[Any, Any, None]) -> None:
        """Serve the session until something of it fails, or `until` raises."""
        self._reporter.repeat(self._worker.statuses())
        try:
            # Not a TaskGroup: there a failure hides a cancellation that comes at the same moment, and the agent of a
            # manager that stops would go on for ever.
            await run_together(
                self._listen(),
                self._beat(),
                self._assignments(),
                self._reporter.run(self._report),
                self._logs.run(),
                self.access.run(),
                until,
            )
        except grpc.aio.AioRpcError as error:
            raise SessionError(words_of(error)) from None

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()

    async def _listen(self) -> None:
        assert self._call is not None
        while True:
            message = await self._call.read()
            if not isinstance(message, SessionMessage):
                raise SessionError("the manager ended the session")
            await self._on_message(message)

    async def _beat(self) -> None:
        while True:
            reply = await self._stub.Heartbeat(
                HeartbeatRequest(session_id=self.id),
                timeout=HEARTBEAT_SECONDS,
                metadata=((TIME, f"{self._clock.now():.3f}"),),
            )
            period = reply.period.seconds + reply.period.nanos / 1e9
            await self._clock.sleep_until(self._clock.monotonic() + max(period, MIN_PERIOD_SECONDS))

    async def _report(self, reports: Sequence[Report]) -> None:
        request = UpdateTaskStatusRequest(session_id=self.id)
        for task_id, status in reports:
            request.updates.add(task_id=task_id, status=status)
        try:
            await self._stub.UpdateTaskStatus(request, timeout=REPORT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.PERMISSION_DENIED:
                raise PermissionDeniedError(error.details() or "permission denied") from error
            raise

    async def _assignments(self) -> None:
        """Apply what comes. After a gap nothing of the message is applied: a new stream begins with everything."""
        gaps = 0
        while gaps <= MAX_GAPS:
            call = self._stub.Assignments(AssignmentsRequest(session_id=self.id))
            position: str | None = None
            try:
                while True:
                    message = await call.read()
                    if not isinstance(message, AssignmentsMessage):
                        raise SessionError("the manager ended the stream of assignments")
                    if message.type != AssignmentsMessage.COMPLETE and message.applies_to != position:
                        break
                    await self._worker.assign(message)
                    position = message.results_in
                    gaps = 0
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                    raise
                await self._tasks()
            finally:
                call.cancel()
            gaps += 1
            log.warning("a message of assignments was missed: asking for all of them anew")
        raise SessionError("the manager's assignments do not follow one another")

    async def _tasks(self) -> None:
        """The same from a manager that is too old for assignments: the full list each time."""
        call = self._stub.Tasks(TasksRequest(session_id=self.id))
        try:
            async for message in call:
                await self._worker.assign_all(message.tasks)
        finally:
            call.cancel()
        raise SessionError("the manager ended the stream of tasks")
