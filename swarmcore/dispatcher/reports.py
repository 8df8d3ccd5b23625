"""What waits to be written in one term of leadership: statuses, node states, orphans, volume reports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.types_pb2 import NodeStatus, TaskState, TaskStatus
from swarmcore.clock import Clock
from swarmcore.dispatcher.states import (
    NodeState,
    write_node_state,
    write_orphaned,
    write_task_status,
    write_unpublished,
)
from swarmcore.dispatcher.writes import WriteQueue
from swarmcore.errors import PermissionDeniedError
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

_ASSIGNED: Final = TaskState.ASSIGNED
_RUNNING: Final = TaskState.RUNNING


class Reports:
    """The dispatcher's writes. Reports are checked on the way in, and everything again when it is written."""

    def __init__(
        self, store: LeaderStore, *, own_node_id: str, clock: Clock, has_session: Callable[[str], bool]
    ) -> None:
        """`has_session` is asked at each write: a node that came back meanwhile is not written down as lost."""
        self._store = store
        self._own_node_id = own_node_id
        self._clock = clock
        self._has_session = has_session
        self._statuses = WriteQueue[TaskStatus]("task statuses", self._write_status, clock)
        self._nodes = WriteQueue[NodeState]("node states", self._write_node, clock)
        self._orphans = WriteQueue[None]("orphaned tasks", self._write_orphan, clock)
        self._clocks = WriteQueue[str]("warnings of clocks", self._write_clock, clock)
        self._volumes = WriteQueue[str]("volume reports", self._write_volume, clock)
        self._stamp = Timestamp()

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[None, None, None]]]:
        """One coroutine function for each queue, to be run side by side for as long as the term lasts."""
        return [
            partial(queue.run, self._store)
            for queue in (self._statuses, self._nodes, self._orphans, self._clocks, self._volumes)
        ]

    # In

    def put_statuses(self, node_id: str, updates: Collection[tuple[str, TaskStatus]]) -> None:
        """Queue what an agent reports.

        Raises PermissionDeniedError when one of the tasks is another node's, ResourceExhaustedError when too many
        wait: nothing of the call is taken over then.
        """
        self._statuses.check_room(len(updates))
        tasks = self._store.view.task
        known: list[tuple[str, TaskStatus]] = []
        for task_id, status in updates:
            task = tasks.get(task_id)
            if task is None:
                continue
            if task.node_id != node_id:
                raise PermissionDeniedError("cannot update a task not assigned this node")
            if status.state >= task.status.state:
                known.append((task_id, status))
        for task_id, status in known:
            waiting = self._statuses.waiting(task_id)
            if waiting is None or waiting.state <= status.state:
                self._statuses.put(task_id, status)

    def put_unpublished(self, node_id: str, volume_ids: Collection[str]) -> None:
        """Queue that the node no longer mounts these volumes."""
        self._volumes.check_room(len(volume_ids))
        for volume_id in volume_ids:
            if volume_id in self._store.view.volume:
                self._volumes.put(f"{volume_id} {node_id}", node_id)

    def put_node(self, node_id: str, state: NodeState) -> None:
        """Queue the state of a node without a session."""
        self._nodes.put(node_id, state)

    def put_clock(self, node_id: str, message: str) -> None:
        """Queue what the status of a node with a session says of its clock."""
        self._clocks.put(node_id, message)

    def put_orphans(self, node_id: str) -> None:
        """Queue that everything the node may still run is given up."""
        for task in self._store.view.task.by("node", node_id):
            if _ASSIGNED <= task.status.state <= _RUNNING:
                self._orphans.put(task.id, None)

    # Out, in a transaction

    def _write_status(self, tx: Transaction, item: tuple[str, TaskStatus]) -> None:
        write_task_status(tx, item[0], item[1], self._own_node_id, self._now())

    def _write_node(self, tx: Transaction, item: tuple[str, NodeState]) -> None:
        if not self._has_session(item[0]):
            write_node_state(tx, item[0], item[1])

    def _write_clock(self, tx: Transaction, item: tuple[str, str]) -> None:
        if self._has_session(item[0]):
            write_node_state(tx, item[0], NodeState(NodeStatus.READY, item[1]))

    def _write_orphan(self, tx: Transaction, item: tuple[str, None]) -> None:
        task = tx.task.get(item[0])
        if task is not None and not self._has_session(task.node_id):
            write_orphaned(tx, item[0], self._own_node_id, self._now())

    def _write_volume(self, tx: Transaction, item: tuple[str, str]) -> None:
        write_unpublished(tx, item[0].partition(" ")[0], item[1])

    def _now(self) -> Timestamp:
        self._stamp.FromNanoseconds(int(self._clock.now() * 1e9))
        return self._stamp
