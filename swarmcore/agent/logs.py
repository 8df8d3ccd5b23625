"""What tasks print, for those who ask a manager: follows the log broker's subscriptions (SwarmKit: 8.12)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Final

import grpc
import grpc.aio

from swarmcore.agent.steps import text_of
from swarmcore.agent.task_manager import TaskManager
from swarmcore.agent.worker import Worker
from swarmcore.api.log_lines import warning_line
from swarmcore.api.logbroker_pb2 import (
    ListenSubscriptionsRequest,
    LogContext,
    LogMessage,
    LogStream,
    PublishLogsMessage,
    SubscriptionMessage,
)
from swarmcore.api.logbroker_pb2_grpc import LogBrokerStub
from swarmcore.api.objects_pb2 import Task
from swarmcore.clock import Clock
from swarmcore.logbroker.marks import Marks
from swarmcore.plugin.executor import ExecutorError, LogLine, LogOptions, LogSource, TemporaryError

log = logging.getLogger("swarmcore.agent")

QUEUED_BYTES: Final = 1024 * 1024
"""Of one subscription: whoever reads more waits until the manager has taken some."""
MESSAGE_BYTES: Final = 256 * 1024
LINE_BYTES: Final = 128
"""What a line costs beside its data."""
MAX_LINE_BYTES: Final = 2 * 1024 * 1024
"""A manager takes messages of 4 MiB."""
GATHER_SECONDS: Final = 0.02
"""How long lines may gather while they come quickly: a message costs as much as some ten of them."""
READ_AGAIN_SECONDS: Final = 1.0
"""Between two tries to read on where an engine went away."""
SILENT_SECONDS: Final = 60.0
"""Without a line, after which an executor is taken to hang that was asked for lines that there are."""
_STREAMS: Final = {1: LogStream.LOG_STREAM_STDOUT, 2: LogStream.LOG_STREAM_STDERR}
LISTEN_AGAIN_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)


def options_of(subscription: SubscriptionMessage) -> LogOptions:
    """What the executor is asked for. A tail of n lines travels as -1-n; 0 and positive numbers mean all."""
    options = subscription.options
    return LogOptions(
        follow=options.follow,
        tail=-options.tail - 1 if options.tail < 0 else None,
        since_ns=options.since.seconds * 1_000_000_000 + options.since.nanos if options.HasField("since") else None,
        streams=frozenset(int(stream) for stream in options.streams) or frozenset({1, 2}),
    )


class LogPublisher:
    """The log subscriptions of one session. A manager without a log broker is a fact, not an error."""

    def __init__(self, channel: grpc.aio.Channel, worker: Worker, node_id: str, clock: Clock) -> None:
        self._stub = LogBrokerStub(channel)
        self._worker = worker
        self._node_id = node_id
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serve subscriptions until cancelled. That logs can't be served now ends no session: it is tried again."""
        failures = 0
        async with asyncio.TaskGroup() as group:
            while True:
                began = self._clock.monotonic()
                try:
                    await self._listen(group)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                        await asyncio.Event().wait()
                    log.debug("listening for log subscriptions ended: %s", error.details())
                # A manager that lost sight of this node tells of everything anew.
                for publishing in self._running.values():
                    publishing.cancel()
                if self._clock.monotonic() - began > LISTEN_AGAIN_SECONDS[-1]:
                    failures = 0
                pause = LISTEN_AGAIN_SECONDS[min(failures, len(LISTEN_AGAIN_SECONDS) - 1)]
                failures += 1
                await self._clock.sleep_until(self._clock.monotonic() + pause)

    async def _listen(self, group: asyncio.TaskGroup) -> None:
        call = self._stub.ListenSubscriptions(ListenSubscriptionsRequest())
        try:
            async for subscription in call:
                self._take(group, subscription)
        finally:
            call.cancel()

    def _take(self, group: asyncio.TaskGroup, subscription: SubscriptionMessage) -> None:
        running = self._running.get(subscription.id)
        if subscription.close:
            if running is not None:
                running.cancel()
        elif running is None or running.cancelling():
            task = group.create_task(self._publish(subscription), name=f"logs {subscription.id}")
            self._running[subscription.id] = task
            task.add_done_callback(lambda done: self._forget(subscription.id, done))

    def _forget(self, id: str, done: asyncio.Task[None]) -> None:
        if self._running.get(id) is done:
            del self._running[id]

    async def _publish(self, subscription: SubscriptionMessage) -> None:
        """Send what matching tasks print, then say that this node is done."""
        spool = _Spool()
        call = self._stub.PublishLogs()
        reading = asyncio.create_task(self._read_all(subscription, spool), name=f"log lines {subscription.id}")
        try:
            while lines := await spool.take():
                await call.write(PublishLogsMessage(subscription_id=subscription.id, messages=lines))
                if spool.is_quick:
                    await asyncio.sleep(GATHER_SECONDS)
            await call.write(PublishLogsMessage(subscription_id=subscription.id, close=True))
            await call.done_writing()
            await call
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as failure:
            # The reader is gone, or the manager. `InvalidStateError` is gRPC's word for a write after the end.
            log.debug("log subscription %s ended: %s", subscription.id, failure)
        finally:
            call.cancel()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_all(self, subscription: SubscriptionMessage, spool: _Spool) -> None:
        """Read the tasks that match, and with `follow` those that come later. Closes the spool at the end."""
        options = options_of(subscription)
        # A tail is of what was before: of tasks that come later, all is wanted.
        whole = replace(options, tail=None)
        is_first = True
        selector = subscription.selector
        known: dict[str, tuple[TaskManager, asyncio.Task[None]]] = {}
        news = asyncio.Event()
        self._worker.on_task.add(news)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    news.clear()
                    for manager in self._worker.matching(
                        tasks=selector.task_ids,
                        services=selector.service_ids,
                        all_tasks=self._node_id in selector.node_ids,
                    ):
                        if manager.task.id not in known:
                            wanted = options if is_first and manager.started.is_set() else whole
                            known[manager.task.id] = (manager, group.create_task(self._read(manager, wanted, spool)))
                    is_first = False
                    if not options.follow:
                        break
                    await news.wait()
                    self._forget_gone(known)
        finally:
            self._worker.on_task.discard(news)
            spool.close()

    def _forget_gone(self, known: dict[str, tuple[TaskManager, asyncio.Task[None]]]) -> None:
        """A follower may stay for months: a task that is gone is kept only while its last lines are being read."""
        there = self._worker.managers
        for id, (manager, reading) in list(known.items()):
            if id in there:
                continue
            if reading.done():
                del known[id]
            elif not manager.started.is_set():
                reading.cancel()

    async def _read(self, manager: TaskManager, options: LogOptions, spool: _Spool) -> None:
        """Read one task. A follower goes on where it was when an engine that went away is back."""
        if options.follow:
            await manager.started.wait()
        source = manager.controller
        task = manager.task
        if source is None:
            return
        if not isinstance(source, LogSource):
            spool.add(warning_line(self._node_id, f"task {task.id}: its executor keeps no logs"))
            return
        marks = Marks() if options.follow else None
        is_told = False
        while True:
            before = marks.lines if marks is not None else 0
            try:
                await self._read_once(task, source, options, spool, marks)
                return
            except Exception as error:  # noqa: BLE001 - the border: an executor's fault costs these lines
                is_told = is_told and marks is not None and marks.lines == before
                if not is_told:
                    log.warning("task %s: reading its logs failed: %s", task.id, text_of(error))
                    spool.add(warning_line(self._node_id, f"task {task.id}: its logs can't be read: {text_of(error)}"))
                    is_told = True
                if marks is None or not isinstance(error, TemporaryError):
                    return
            await asyncio.sleep(READ_AGAIN_SECONDS)
            if self._worker.managers.get(task.id) is not manager or manager.is_removed:
                return
            if marks.since_ns is not None:
                options = replace(options, tail=None, since_ns=marks.since_ns)
                marks.rewind()

    async def _read_once(
        self, task: Task, source: LogSource, options: LogOptions, spool: _Spool, marks: Marks | None
    ) -> None:
        context = LogContext(service_id=task.service_id, node_id=self._node_id, task_id=task.id)
        lines = source.logs(options)
        try:
            async for line in lines if options.follow else _soon(lines):
                if spool.is_full:
                    await spool.room()
                if len(line.data) > MAX_LINE_BYTES:
                    raise ValueError(f"a piece of {len(line.data)} bytes is more than {MAX_LINE_BYTES}")
                message = LogMessage(
                    context=context, stream=_STREAMS.get(line.stream, LogStream.LOG_STREAM_UNKNOWN), data=line.data
                )
                seconds, message.timestamp.nanos = divmod(line.timestamp_ns, 1_000_000_000)
                message.timestamp.seconds = seconds
                if marks is not None and not marks.is_new(message):
                    continue
                for key, value in line.attrs.items():
                    message.attrs.add(key=key, value=value)
                spool.add(message)
        finally:
            # Whoever stops reading here must not leave the files or the stream open until the next collection.
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()


async def _soon(lines: AsyncIterator[LogLine]) -> AsyncIterator[LogLine]:
    """The same lines. Raises ExecutorError where none comes for long."""
    while True:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                line = await anext(lines)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ExecutorError(f"its executor has said nothing for {SILENT_SECONDS:g} s") from None
        yield line


class _Spool:
    """Lines on their way to the manager: many tasks fill it, one call empties it."""

    def __init__(self) -> None:
        self._lines: list[LogMessage] = []
        self._bytes = 0
        self._is_closed = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self.is_quick = False
        """Whether many lines had come in the time since the last ones were taken."""

    @property
    def is_full(self) -> bool:
        return self._bytes >= QUEUED_BYTES

    async def room(self) -> None:
        """Return when there is room, to the first of those who wait and come back."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def add(self, line: LogMessage) -> None:
        if not self._lines:
            self._news.set()
        self._lines.append(line)
        self._bytes += len(line.data) + LINE_BYTES

    def close(self) -> None:
        """Nothing more comes."""
        self._is_closed = True
        self._news.set()

    async def take(self) -> list[LogMessage]:
        """Lines for one message, waiting for the first; none when it was closed and all were taken."""
        while not self._lines:
            if self._is_closed:
                return []
            self._news.clear()
            await self._news.wait()
        if self._bytes <= MESSAGE_BYTES:
            lines, self._lines, self._bytes = self._lines, [], 0
        else:
            lines = self._first()
        self.is_quick = len(lines) > 1 and not self.is_full
        self._room.set()
        return lines

    def _first(self) -> list[LogMessage]:
        size = count = 0
        while count < len(self._lines) and size < MESSAGE_BYTES:
            size += len(self._lines[count].data) + LINE_BYTES
            count += 1
        lines = self._lines[:count]
        del self._lines[:count]
        self._bytes -= size
        return lines
