"""One reader of logs: which nodes owe it lines, what came of each, and the lines that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from swarmcore.api.log_lines import warning_line
from swarmcore.api.logbroker_pb2 import LogMessage, SubscribeLogsRequest, SubscriptionMessage
from swarmcore.api.objects_pb2 import Task
from swarmcore.logbroker.marks import Marks
from swarmcore.logbroker.outbox import Outbox

INCOMPLETE = "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
ALL_LINES = 0
"""As a tail: every line."""


class Subscription:
    """Lives for one call of SubscribeLogs, in one term."""

    def __init__(self, id: str, request: SubscribeLogsRequest) -> None:
        self.id = id
        self.selector = request.selector
        self._services = frozenset(request.selector.service_ids)
        self._tasks = frozenset(request.selector.task_ids)
        self.options = request.options
        self.follow = request.options.follow
        self.outbox = Outbox()
        self.reader = asyncio.current_task()
        """Runs the call; cancelled when its peer reads no more."""
        self.read_at = 0.0
        """When the reader last came for lines, on the monotonic clock."""
        self.publishers: set[asyncio.Future[None]] = set()
        """Those who take lines from nodes; they end with the subscription."""
        self.awaited: dict[str, tuple[float, str]] = {}
        """Nodes that should listen: until when, on the monotonic clock, and what is said of them then."""
        self.began_at = 0.0
        """When it began, on the monotonic clock."""
        self.heard_at: dict[str, float] = {}
        """When a node last brought lines, on the monotonic clock."""
        self.is_over = False
        self._nodes: set[str] = set()
        self._owing: set[str] = set()
        self._late: set[str] = set()
        """Nodes that were found after it began: all that their tasks print is new."""
        self._has_begun = False
        self._given_up: set[str] = set()
        """Nodes that are connected and yet lost, of which this was said."""
        self._errors: dict[str, None] = {}
        self._marks: dict[str, Marks] = {}
        """By node. Kept for followers, whose nodes may come again."""

    @property
    def nodes(self) -> frozenset[str]:
        """Every node that was found to have lines, so far."""
        return frozenset(self._nodes)

    @property
    def errors(self) -> list[str]:
        """Why lines are missing, each reason once."""
        return list(self._errors)

    def owes(self, node_id: str) -> bool:
        """Whether the node may have lines that it has not sent."""
        return not self.is_over and node_id in self._owing

    @property
    def owing(self) -> list[str]:
        """The nodes that may have lines that they have not sent."""
        return [] if self.is_over else list(self._owing)

    def concerns(self, task: Task) -> bool:
        """Whether a task is one that the selector names, itself or by its service."""
        return task.id in self._tasks or task.service_id in self._services

    # What nodes are told

    def add_nodes(self, nodes: Iterable[str]) -> list[str]:
        """Nodes have lines for it; return those that are new to it."""
        new = sorted(set(nodes) - self._nodes)
        self._nodes.update(new)
        self._owing.update(new)
        if self._has_begun:
            self._late.update(new)
        return new

    def begin(self, pending: Iterable[str]) -> None:
        """All nodes are known. `pending`: tasks without a node, for which a follower waits."""
        self._has_begun = True
        if not self.follow:
            for task_id in pending:
                self._errors[f"task {task_id} has not been scheduled"] = None
            self._maybe_end()

    def message(self, node_id: str) -> SubscriptionMessage:
        """What the node is told of it. A node that comes again goes on where it stopped."""
        message = SubscriptionMessage(id=self.id, selector=self.selector, options=self.options)
        if node_id in self._late:
            # A tail is of what was before.
            message.options.tail = ALL_LINES
        marks = self._marks.get(node_id)
        if marks is not None and marks.since_ns is not None:
            message.options.tail = ALL_LINES
            message.options.since.FromNanoseconds(marks.since_ns)
            marks.rewind()
        return message

    # What nodes say

    async def take(self, node_id: str, lines: Sequence[LogMessage]) -> None:
        """Lines of a node; returns when there was room for them."""
        if self.follow:
            marks = self._marks.get(node_id)
            if marks is None:
                marks = self._marks[node_id] = Marks()
            lines = [line for line in lines if marks.is_new(line)]
        await self.outbox.put(lines)

    def node_done(self, node_id: str, error: str = "") -> None:
        """The node sends no more lines; all of them were sent where there is no `error`."""
        self.awaited.pop(node_id, None)
        if not self.owes(node_id):
            return
        if self.follow:
            # Followers wait for nodes that come again.
            if error:
                self.outbox.put_at_once([warning_line(node_id, error)])
            return
        if error:
            self._errors[error] = None
        self._owing.discard(node_id)
        self._maybe_end()

    def last_heard(self, node_id: str) -> float:
        """When the node last brought lines, or could first have done so."""
        return self.heard_at.get(node_id, self.began_at)

    def silent(self, node_id: str, reason: str) -> None:
        """The node is connected and says nothing. A follower is told once, until `heard_again`."""
        if node_id not in self._given_up:
            self._given_up.add(node_id)
            self.node_done(node_id, reason)

    def heard_again(self, node_id: str) -> None:
        self._given_up.discard(node_id)

    def close(self) -> None:
        """Nobody reads any more, or nothing more comes."""
        self.is_over = True
        self.awaited.clear()
        self.outbox.close()
        for publisher in self.publishers:
            publisher.cancel()

    def _maybe_end(self) -> None:
        if not self._owing:
            # Publishers end by themselves: they have said that they are done.
            self.is_over = True
            self.outbox.close()
