"""The Logs and LogBroker services, and their life as a component that runs while this manager leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from grpc.aio import ServicerContext

from swarmcore.api.caller import Caller, current_caller
from swarmcore.api.ids import IdSource, new_id
from swarmcore.api.logbroker_pb2 import (
    ListenSubscriptionsRequest,
    PublishLogsMessage,
    PublishLogsResponse,
    SubscribeLogsMessage,
    SubscribeLogsRequest,
    SubscriptionMessage,
)
from swarmcore.api.logbroker_pb2_grpc import LogBrokerServicer, LogsServicer
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import (
    AbortedError,
    InvalidArgumentError,
    NotFoundError,
    NotLeaderError,
    PermissionDeniedError,
    SwarmError,
    UnavailableError,
)
from swarmcore.logbroker.selection import check_request
from swarmcore.logbroker.subscription import INCOMPLETE, Subscription
from swarmcore.logbroker.term import Term
from swarmcore.store.store import LeaderStore

Context = ServicerContext[Any, Any]
NO_LONGER = "this manager no longer leads: ask again"


class LogBroker(LogsServicer, LogBrokerServicer):
    """Brings readers of logs together with the nodes that have the lines. Refuses calls while `run` is not active."""

    name: Final = "log broker"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        new_id: IdSource = new_id,
        caller: Callable[[], Caller] = current_caller,
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._new_id = new_id
        self._caller = caller
        self._term: Term | None = None

    async def run(self, store: LeaderStore) -> None:
        """Serve while leading. Ends when cancelled; readers and nodes are sent to the next leader then."""
        term = self._term = Term(store, self._clock, self._new_id)
        try:
            await term.run()
        finally:
            self._term = None
            term.stop()

    @property
    def subscriptions(self) -> int:
        """How many log streams are open."""
        return self._term.subscriptions if self._term is not None else 0

    def _running(self) -> Term:
        if self._term is None:
            raise NotLeaderError("this manager does not lead: ask again")
        return self._term

    async def SubscribeLogs(
        self, request: SubscribeLogsRequest, context: Context
    ) -> AsyncIterator[SubscribeLogsMessage]:
        """Lines of everything that the selector names. Ends when all nodes are done; with `follow` never by itself.

        Raises SwarmError with INCOMPLETE and the reasons, after all lines that there are, where nodes failed.
        """
        term = self._running()
        check_request(request)
        with term.subscribe(request) as subscription:
            while (message := await subscription.outbox.get()) is not None:
                yield message
                subscription.read_at = self._clock.monotonic()
        if term.is_over:
            raise UnavailableError(NO_LONGER)
        if subscription.errors:
            raise SwarmError(INCOMPLETE + ", ".join(subscription.errors))

    async def ListenSubscriptions(
        self, request: ListenSubscriptionsRequest, context: Context
    ) -> AsyncIterator[SubscriptionMessage]:
        """What the calling node is to publish, and what no longer."""
        term = self._running()
        with term.listen(self._caller().node_id) as listener:
            async for message in listener.messages():
                yield message

    async def PublishLogs(self, requests: AsyncIterator[PublishLogsMessage], context: Context) -> PublishLogsResponse:
        """Lines of the calling node for one subscription, which the first message names.

        What comes is taken as fast as the reader takes it. Raises AbortedError when the reader is gone.
        """
        term = self._running()
        taking = asyncio.ensure_future(self._take(term, self._caller().node_id, requests))
        try:
            await asyncio.wait({taking})
        finally:
            taking.cancel()
        if taking.cancelled():
            raise AbortedError("the log subscription has ended")
        taking.result()
        return PublishLogsResponse()

    async def _take(self, term: Term, node_id: str, requests: AsyncIterator[PublishLogsMessage]) -> None:
        subscription: Subscription | None = None
        own = asyncio.current_task()
        assert own is not None
        try:
            async for message in requests:
                if subscription is None:
                    subscription = _named(term, node_id, message)
                    subscription.publishers.add(own)
                elif message.subscription_id != subscription.id:
                    raise InvalidArgumentError("log subscription changed in the middle of a stream")
                if message.messages:
                    if any([line.context.node_id != node_id for line in message.messages]):
                        raise PermissionDeniedError(
                            "a node may publish its own logs only: context.node_id is another's"
                        )
                    await subscription.take(node_id, message.messages)
                    subscription.heard_at[node_id] = self._clock.monotonic()
                if message.close:
                    break
        except SwarmError as error:
            if subscription is not None:
                subscription.node_done(node_id, f"node {node_id}: {error}")
            raise
        except BaseException:
            if subscription is not None:
                term.lost(subscription, node_id)
            raise
        else:
            if subscription is not None:
                subscription.node_done(node_id)
        finally:
            if subscription is not None:
                subscription.publishers.discard(own)


def _named(term: Term, node_id: str, message: PublishLogsMessage) -> Subscription:
    """The subscription that a stream's first message names, if its node was asked to serve it."""
    if not message.subscription_id:
        raise InvalidArgumentError("missing log subscription ID")
    subscription = term.find(message.subscription_id)
    if subscription is None or not subscription.owes(node_id):
        raise NotFoundError("log subscription not found")
    return subscription
