"""Requests to nodes, as they run: a command with its two directions, or samples of what tasks use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from swarmcore.api.exec_pb2 import ExecInput, ExecOutput, ExecStart, NodeStats, StatsStart, TaskRequest
from swarmcore.errors import UnavailableError
from swarmcore.execbroker.channel import Channel


class ExecJob:
    """One command on one node."""

    def __init__(self, id: str, node_id: str, node_name: str, start: ExecStart) -> None:
        self.id = id
        self.node_id = node_id
        self._node_name = node_name
        self.to_node: Channel[ExecInput] = Channel()
        self.to_operator: Channel[ExecOutput] = Channel()
        self.attached = asyncio.Event()
        """The node has taken it up, or never will."""
        self.is_over = False
        self._start = start

    def request(self, node_id: str) -> TaskRequest:
        return TaskRequest(id=self.id, exec=self._start)

    def wants(self, node_id: str) -> bool:
        """Whether the node has to know of it."""
        return not self.is_over and node_id == self.node_id

    def node_lost(self, node_id: str, failure: Exception) -> None:
        """The node does not listen any more. A command that it has taken up ends with its own stream, not with this."""
        if node_id == self.node_id and not self.attached.is_set():
            self.close(failure)

    def lost(self) -> UnavailableError:
        """What there is to say where the command's stream ended before the command did."""
        return UnavailableError(f"node {self._node_name} was lost while the command ran: how it ended is not known")

    def close(self, failure: Exception | None = None) -> None:
        """End both directions; what the command wrote can still be read."""
        self.is_over = True
        self.attached.set()
        self.to_node.close()
        self.to_operator.close(failure)


class StatsJob:
    """Samples of tasks on some nodes, for one reader."""

    def __init__(self, id: str, tasks: dict[str, list[str]], *, once: bool, interval_seconds: float) -> None:
        """`tasks`: ids by node."""
        self.id = id
        self.samples: Channel[NodeStats] = Channel()
        self.is_over = False
        self._tasks = tasks
        self._once = once
        self._interval = interval_seconds
        self._owing = set(tasks)
        self.lost: set[str] = set()
        """Nodes that could not be asked, or went away."""

    @property
    def nodes(self) -> Iterable[str]:
        return self._tasks

    def request(self, node_id: str) -> TaskRequest:
        start = StatsStart(task_ids=self._tasks[node_id], once=self._once, interval_seconds=self._interval)
        return TaskRequest(id=self.id, stats=start)

    def wants(self, node_id: str) -> bool:
        return not self.is_over and node_id in self._owing

    def node_done(self, node_id: str) -> None:
        """It has sent all that it was asked for."""
        self._owing.discard(node_id)
        if not self._owing:
            self.samples.close()

    def node_lost(self, node_id: str, failure: Exception) -> None:
        """The node has nothing to say, and why."""
        if self.wants(node_id):
            self.lost.add(node_id)
            self.samples.put_at_once(NodeStats(warnings=[str(failure)]))
            self.node_done(node_id)

    def close(self, failure: Exception | None = None) -> None:
        self.is_over = True
        self.samples.close(failure)


Job = ExecJob | StatsJob
