"""From changes of the store to the streams of the nodes they concern: one subscription serves all sessions."""

from __future__ import annotations

import asyncio
import logging

from swarmcore.api.dispatcher_pb2 import TasksMessage
from swarmcore.api.objects_pb2 import Config, Secret, Task, Volume
from swarmcore.api.types_pb2 import TaskState
from swarmcore.dispatcher.assignments import AssignmentSet, concerns_node
from swarmcore.dispatcher.streams import AssignmentStream, Pump, Session, Stream
from swarmcore.store.changes import Change, StatusChange
from swarmcore.store.store import LeaderStore

_ASSIGNED = TaskState.ASSIGNED
_RUNNING = TaskState.RUNNING
_COMPLETE = TaskState.COMPLETE

_log = logging.getLogger("swarmcore.dispatcher")


class StoreReader:
    """What assignments look up."""

    def __init__(self, store: LeaderStore) -> None:
        self._store = store

    def secret(self, id: str) -> Secret | None:
        secret = self._store.view.secret.get(id)
        if secret is not None and secret.spec.HasField("driver"):
            _log.debug("secret %r is left out: no plugin serves driver %r", id, secret.spec.driver.name)
            return None
        return secret

    def config(self, id: str) -> Config | None:
        return self._store.view.config.get(id)


class Routes:
    """The streams that carry tasks, by node id."""

    def __init__(self, store: LeaderStore, pump: Pump) -> None:
        self._store = store
        self._pump = pump
        self._reader = StoreReader(store)
        self._assignments: dict[str, AssignmentStream] = {}
        self._lists: dict[str, Stream] = {}

    def open_assignments(self, session: Session) -> AssignmentStream:
        """The node's stream of assignments, with everything that the node shall have waiting in it."""
        assigned = AssignmentSet(session.node_id, self._reader)
        stream = AssignmentStream(asyncio.current_task(), assigned=assigned)
        self._assignments[session.node_id] = stream
        self._fill(stream)
        return stream

    def open_list(self, session: Session) -> Stream:
        """The node's stream of task lists."""
        stream = self._lists[session.node_id] = Stream(asyncio.current_task())
        return stream

    def close(self, session: Session, stream: Stream) -> None:
        """Forget a stream whose handler ends."""
        if self._assignments.get(session.node_id) is stream:
            del self._assignments[session.node_id]
        if self._lists.get(session.node_id) is stream:
            del self._lists[session.node_id]

    def task_list(self, node_id: str) -> TasksMessage:
        """All live tasks of the node."""
        tasks = self._store.view.task.by("node", node_id)
        return TasksMessage(
            tasks=[task for task in tasks if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING]
        )

    def on_task(self, change: Change) -> None:
        """Called for each task that changes, whatever changes: must stay cheap."""
        new: Task | None = change.new
        if new is None:
            self._drop(change.old)
            return
        state = new.status.state
        if state < _ASSIGNED:
            self._watch_for(change.old, new)
            return
        if type(change) is StatusChange and _ASSIGNED < state <= _RUNNING:
            # What the node reported itself: nearly all there is.
            return
        self._pump.expect_no_more(new.id)
        node_id = new.node_id
        stream = self._assignments.get(node_id)
        listed = self._lists.get(node_id) if self._lists else None
        if (stream is None and listed is None) or not concerns_node(change.old, new):
            return
        if stream is not None:
            stream.assigned.put(new)
            self._mark(stream)
        if listed is not None:
            self._pump.mark(listed)

    def _watch_for(self, old: Task | None, new: Task) -> None:
        """A task without a node is coming when it is new, or went a state on; any other change says why it waits."""
        if (old is None or old.status.state < new.status.state) and new.desired_state <= _COMPLETE:
            self._pump.expect(new.id)
        else:
            self._pump.expect_no_more(new.id)

    def _drop(self, task: Task | None) -> None:
        if task is None:
            return
        self._pump.expect_no_more(task.id)
        stream = self._assignments.get(task.node_id)
        if stream is not None:
            stream.assigned.drop(task.id)
            self._mark(stream)
        listed = self._lists.get(task.node_id)
        if listed is not None:
            self._pump.mark(listed)

    def on_volume(self, change: Change) -> None:
        volume: Volume | None = change.new
        if volume is None:
            return
        for status in volume.publish_status:
            stream = self._assignments.get(status.node_id)
            if stream is not None:
                stream.assigned.put_volume(volume)
                self._mark(stream)

    def resync(self) -> None:
        """Changes were missed: compare everything with the store as it is."""
        tasks = self._store.view.task
        self._pump.expect_nothing()
        for stream in self._assignments.values():
            assigned = stream.assigned
            for task_id in [id for id in assigned.task_ids if id not in tasks]:
                assigned.drop(task_id)
            self._fill(stream)
            self._mark(stream)
        for listed in self._lists.values():
            self._pump.mark(listed)

    def _fill(self, stream: AssignmentStream) -> None:
        assigned = stream.assigned
        view = self._store.view
        for task in view.task.by("node", assigned.node_id):
            if task.status.state >= TaskState.ASSIGNED:
                assigned.put(task)
        for volume in view.volume.all():
            assigned.put_volume(volume)

    def _mark(self, stream: AssignmentStream) -> None:
        if stream.assigned.has_pending:
            self._pump.mark(stream)
