"""What tasks print, for those who ask a manager: follows the log broker's subscriptions (SwarmKit: 8.12)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Final

import grpc
import grpc.aio

from swarmcore.agent.steps import text_of
from swarmcore.agent.task_manager import TaskManager
from swarmcore.agent.worker import Worker
from swarmcore.api.logbroker_pb2 import (
    ListenSubscriptionsRequest,
    LogMessage,
    PublishLogsMessage,
    PublishLogsResponse,
    SubscriptionMessage,
)
from swarmcore.api.logbroker_pb2_grpc import LogBrokerStub
from swarmcore.plugin.executor import LogOptions, LogSource

log = logging.getLogger("swarmcore.agent")

QUEUED_MESSAGES: Final = 256
MESSAGES_AT_ONCE: Final = 64
MESSAGE_BYTES: Final = 512 * 1024


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

    def __init__(self, channel: grpc.aio.Channel, worker: Worker, node_id: str) -> None:
        self._stub = LogBrokerStub(channel)
        self._worker = worker
        self._node_id = node_id
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serve subscriptions until cancelled; raises AioRpcError when the stream of them breaks."""
        call = self._stub.ListenSubscriptions(ListenSubscriptionsRequest())
        broken: grpc.aio.AioRpcError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    async for subscription in call:
                        self._take(group, subscription)
                except grpc.aio.AioRpcError as error:
                    broken = error
                    if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                        for publishing in self._running.values():
                            publishing.cancel()
        finally:
            call.cancel()
        if broken is not None and broken.code() != grpc.StatusCode.UNIMPLEMENTED:
            raise broken
        await asyncio.Event().wait()

    def _take(self, group: asyncio.TaskGroup, subscription: SubscriptionMessage) -> None:
        running = self._running.get(subscription.id)
        if subscription.close:
            if running is not None:
                running.cancel()
        elif running is None:
            task = group.create_task(self._publish(subscription), name=f"logs {subscription.id}")
            self._running[subscription.id] = task
            task.add_done_callback(lambda _: self._running.pop(subscription.id, None))

    async def _publish(self, subscription: SubscriptionMessage) -> None:
        """Send the lines of all tasks that match, then say that this node is done."""
        lines: asyncio.Queue[LogMessage | None] = asyncio.Queue(QUEUED_MESSAGES)
        call = self._stub.PublishLogs()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_all(subscription, lines))
                while await self._send(call, subscription.id, lines):
                    pass
            await call.write(PublishLogsMessage(subscription_id=subscription.id, close=True))
            await call.done_writing()
            await call
        except* (grpc.aio.AioRpcError, asyncio.InvalidStateError) as failures:
            log.debug("log subscription %s ended: %s", subscription.id, failures.exceptions[0])
        finally:
            call.cancel()

    async def _send(
        self,
        call: grpc.aio.StreamUnaryCall[PublishLogsMessage, PublishLogsResponse],
        subscription_id: str,
        lines: asyncio.Queue[LogMessage | None],
    ) -> bool:
        """Send what is there, many lines in one message; return whether more may come."""
        message = PublishLogsMessage(subscription_id=subscription_id)
        size = 0
        line = await lines.get()
        while line is not None:
            message.messages.append(line)
            size += len(line.data) + 128
            if lines.empty() or len(message.messages) == MESSAGES_AT_ONCE or size > MESSAGE_BYTES:
                break
            line = lines.get_nowait()
        if message.messages:
            await call.write(message)
        return line is not None

    async def _read_all(self, subscription: SubscriptionMessage, lines: asyncio.Queue[LogMessage | None]) -> None:
        """Read the tasks that match, and with `follow` those that come later. Puts None at the end."""
        options = options_of(subscription)
        selector = subscription.selector
        known: set[str] = set()
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
                            known.add(manager.task.id)
                            group.create_task(self._read(manager, options, lines))
                    if not options.follow:
                        break
                    await news.wait()
        finally:
            self._worker.on_task.discard(news)
        await lines.put(None)

    async def _read(self, manager: TaskManager, options: LogOptions, lines: asyncio.Queue[LogMessage | None]) -> None:
        if options.follow:
            await manager.started.wait()
        source = manager.controller
        if not isinstance(source, LogSource):
            return
        task = manager.task
        lines_of_task = source.logs(options)
        try:
            async for line in lines_of_task:
                message = LogMessage(stream=line.stream, data=line.data)
                message.context.service_id = task.service_id
                message.context.node_id = self._node_id
                message.context.task_id = task.id
                message.timestamp.FromNanoseconds(line.timestamp_ns)
                await lines.put(message)
        except Exception as error:  # noqa: BLE001 - the border: an executor's fault costs these lines
            log.warning("task %s: reading its logs failed: %s", task.id, text_of(error))
        finally:
            # Whoever stops reading here must not leave the files or the stream open until the next collection.
            if isinstance(lines_of_task, AsyncGenerator):
                await lines_of_task.aclose()
