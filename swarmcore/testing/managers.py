"""A manager's side of sessions that does what a test says: a dispatcher and a log broker on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from swarmcore.agent.connections import RemoteConnections
from swarmcore.agent.remotes import RemotePeer, Remotes
from swarmcore.api.dispatcher_pb2 import (
    AssignmentChange,
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
from swarmcore.api.dispatcher_pb2_grpc import DispatcherServicer, add_DispatcherServicer_to_server
from swarmcore.api.exec_pb2_grpc import TaskAccessBrokerServicer, add_TaskAccessBrokerServicer_to_server
from swarmcore.api.logbroker_pb2 import (
    ListenSubscriptionsRequest,
    LogMessage,
    PublishLogsMessage,
    PublishLogsResponse,
    SubscriptionMessage,
)
from swarmcore.api.logbroker_pb2_grpc import LogBrokerServicer, add_LogBrokerServicer_to_server
from swarmcore.api.objects_pb2 import Config, Secret, Task
from swarmcore.api.types_pb2 import TaskState, TaskStatus

Context = grpc.aio.ServicerContext[Any, Any]
Failure = tuple[grpc.StatusCode, str]


def assignments(*items: Task | Secret | Config, complete: bool = False) -> AssignmentsMessage:
    """A message that assigns these."""
    message = AssignmentsMessage(type=AssignmentsMessage.COMPLETE if complete else AssignmentsMessage.INCREMENTAL)
    for item in items:
        change = message.changes.add(action=AssignmentChange.UPDATE)
        if isinstance(item, Task):
            change.assignment.task.CopyFrom(item)
        elif isinstance(item, Secret):
            change.assignment.secret.CopyFrom(item)
        else:
            change.assignment.config.CopyFrom(item)
    return message


class FakeManager(DispatcherServicer):
    """Remembers what agents say, and says what a test puts into its queues."""

    def __init__(self) -> None:
        self.registrations: list[SessionRequest] = []
        self.heartbeats = 0
        self.statuses: dict[str, TaskStatus] = {}
        self.updates: list[UpdateTaskStatusRequest] = []
        self.session_messages: asyncio.Queue[SessionMessage | Failure] = asyncio.Queue()
        """What follows the first message of the newest session."""
        self.first = SessionMessage()
        """The first message, without its session id."""
        self.assignments: list[asyncio.Queue[AssignmentsMessage | Failure]] = []
        """One queue for each stream of assignments that was opened."""
        self.everything: AssignmentsMessage | None = None
        """What each stream begins with, where a test sets it; else what the test puts into its queue."""
        self.task_lists: asyncio.Queue[TasksMessage] = asyncio.Queue()
        self.refuse: dict[str, Failure] = {}
        """Methods that fail, by name."""
        self.period = 5.0
        self.changed = asyncio.Event()
        self.address = ""
        self._server: grpc.aio.Server | None = None
        self._sessions = 0

    async def start(
        self,
        address: str = "127.0.0.1:0",
        broker: LogBrokerServicer | None = None,
        access: TaskAccessBrokerServicer | None = None,
    ) -> None:
        """Listen; on the same address again after `stop`."""
        server = self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_DispatcherServicer_to_server(self, server)
        if broker is not None:
            add_LogBrokerServicer_to_server(broker, server)
        if access is not None:
            add_TaskAccessBrokerServicer_to_server(access, server)
        port = server.add_insecure_port(self.address or address)
        self.address = f"127.0.0.1:{port}"
        await server.start()

    async def stop(self) -> None:
        """Stop as a process that dies: every stream breaks."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def connections(self) -> RemoteConnections:
        """How an agent reaches this manager."""
        remotes = Remotes()
        remotes.observe(RemotePeer("manager", self.address), 10)
        # No memory of failed connections between tests, and none of a second's pause before the next try.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
        return RemoteConnections(remotes, lambda address: grpc.aio.insecure_channel(address, options=options))

    def assign(self, *items: Task | Secret | Config, complete: bool = False, gap: bool = False) -> None:
        """Send assignments on the newest stream; `gap` leaves one message out before."""
        message = assignments(*items, complete=complete)
        message.applies_to = "gap" if gap else ""
        self.assignments[-1].put_nowait(message)

    async def until(self, fact: Any) -> None:
        """Return when `fact()` holds; asked after each call of an agent, and now and then."""
        async with asyncio.timeout(10):
            while not fact():
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.02):
                        await self.changed.wait()
                except TimeoutError:
                    continue

    # The service

    async def Session(self, request: SessionRequest, context: Context) -> AsyncIterator[SessionMessage]:
        await self._maybe_refuse("Session", context)
        self.registrations.append(request)
        queue = self.session_messages = asyncio.Queue()
        message = SessionMessage()
        message.CopyFrom(self.first)
        if not request.session_id:
            self._sessions += 1
        message.session_id = request.session_id or f"session{self._sessions}"
        yield message
        self.changed.set()
        while True:
            item = await queue.get()
            if isinstance(item, tuple):
                await context.abort(*item)
            item.session_id = message.session_id
            yield item

    async def Heartbeat(self, request: HeartbeatRequest, context: Context) -> HeartbeatResponse:
        await self._maybe_refuse("Heartbeat", context)
        self.heartbeats += 1
        self.changed.set()
        response = HeartbeatResponse()
        response.period.FromMilliseconds(round(self.period * 1000))
        return response

    async def Assignments(self, request: AssignmentsRequest, context: Context) -> AsyncIterator[AssignmentsMessage]:
        await self._maybe_refuse("Assignments", context)
        queue: asyncio.Queue[AssignmentsMessage | Failure] = asyncio.Queue()
        self.assignments.append(queue)
        if self.everything is not None:
            first = AssignmentsMessage()
            first.CopyFrom(self.everything)
            queue.put_nowait(first)
        self.changed.set()
        number = 0
        while True:
            item = await queue.get()
            if isinstance(item, tuple):
                await context.abort(*item)
            item.applies_to = item.applies_to or (str(number) if number else "")
            number += 1
            item.results_in = str(number)
            yield item

    async def Tasks(self, request: TasksRequest, context: Context) -> AsyncIterator[TasksMessage]:
        while True:
            yield await self.task_lists.get()

    async def UpdateTaskStatus(self, request: UpdateTaskStatusRequest, context: Context) -> UpdateTaskStatusResponse:
        await self._maybe_refuse("UpdateTaskStatus", context)
        self.updates.append(request)
        for update in request.updates:
            self.statuses[update.task_id] = update.status
        self.changed.set()
        return UpdateTaskStatusResponse()

    async def UpdateVolumeStatus(
        self, request: UpdateVolumeStatusRequest, context: Context
    ) -> UpdateVolumeStatusResponse:
        return UpdateVolumeStatusResponse()

    async def _maybe_refuse(self, method: str, context: Context) -> None:
        failure = self.refuse.get(method)
        if failure is not None:
            await context.abort(*failure)

    def state_of(self, task_id: str) -> TaskState.ValueType:
        """The state last reported of a task."""
        return self.statuses[task_id].state if task_id in self.statuses else TaskState.NEW


class FakeLogBroker(LogBrokerServicer):
    """Says which subscriptions there are, and collects what is published, by subscription."""

    def __init__(self) -> None:
        self.subscriptions: asyncio.Queue[SubscriptionMessage] = asyncio.Queue()
        self.published: dict[str, list[LogMessage]] = {}
        self.closed: set[str] = set()

    async def ListenSubscriptions(
        self, request: ListenSubscriptionsRequest, context: Context
    ) -> AsyncIterator[SubscriptionMessage]:
        while True:
            yield await self.subscriptions.get()

    async def PublishLogs(
        self, request_iterator: AsyncIterator[PublishLogsMessage], context: Context
    ) -> PublishLogsResponse:
        async for message in request_iterator:
            self.published.setdefault(message.subscription_id, []).extend(message.messages)
            if message.close:
                self.closed.add(message.subscription_id)
        return PublishLogsResponse()
