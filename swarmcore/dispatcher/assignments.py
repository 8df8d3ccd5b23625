"""What one node shall have, and what it must be told to get there. Pure: store objects in, messages out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from swarmcore.api.dispatcher_pb2 import AssignmentChange, AssignmentsMessage
from swarmcore.api.objects_pb2 import Config, Secret, Task, Volume
from swarmcore.api.tasks import is_same_but_status
from swarmcore.api.types_pb2 import ResourceType, TaskState, VolumeAssignment, VolumePublishStatus

MESSAGE_BYTES = 1024 * 1024
"""Aimed size of a message. Agents before Docker 18.09 refuse more than 4 MiB."""
_CHANGE_OVERHEAD = 16
MAX_ID_BYTES = 32

Key = tuple[str, str]
"""Table and id of one thing assigned."""

Item: TypeAlias = Task | Secret | Config | VolumeAssignment | None
"""What to say; None says REMOVE."""

_SECRET = ResourceType.SECRET
_CONFIG = ResourceType.CONFIG
_ASSIGNED = TaskState.ASSIGNED
_ACCEPTED = TaskState.ACCEPTED
_STARTING = TaskState.STARTING
_RUNNING = TaskState.RUNNING


class Reader(Protocol):
    """The look-ups needed from the store."""

    def secret(self, id: str) -> Secret | None: ...
    def config(self, id: str) -> Config | None: ...


def needs(task: Task) -> list[Key]:
    """Secrets and configs that a task refers to, each once, in order."""
    keys: dict[Key, None] = {}
    spec = task.spec
    if spec.HasField("container"):
        container = spec.container
        for secret in container.secrets:
            keys["secret", secret.secret_id] = None
        for config in container.configs:
            keys["config", config.config_id] = None
    for ref in spec.resource_references:
        if ref.resource_type == _SECRET:
            keys["secret", ref.resource_id] = None
        elif ref.resource_type == _CONFIG:
            keys["config", ref.resource_id] = None
    return list(keys)


def concerns_node(old: Task | None, new: Task) -> bool:
    """Whether the task's node has to hear of this change. Called for each task that changes: must stay cheap."""
    state = new.status.state
    if state < _ASSIGNED:
        return False
    if old is None or state == _ASSIGNED or old.status.state < _ASSIGNED:
        return True
    if state > _RUNNING and old.status.state <= _RUNNING:
        return True
    return not is_same_but_status(old, new)


def volume_assignment(volume: Volume, node_id: str) -> VolumeAssignment:
    """What the node needs to mount the volume."""
    assignment = VolumeAssignment(id=volume.id, volume_id=volume.volume_info.volume_id)
    assignment.driver.CopyFrom(volume.spec.driver)
    assignment.volume_context.update(volume.volume_info.volume_context)
    assignment.access_mode.CopyFrom(volume.spec.access_mode)
    assignment.secrets.extend(volume.spec.secrets)
    for status in volume.publish_status:
        if status.node_id == node_id:
            assignment.publish_context.update(status.publish_context)
    return assignment


@dataclass(slots=True)
class _Use:
    """A secret or config: who uses it, and whether the node has it."""

    users: int = 0
    is_sent: bool = False


@dataclass(slots=True)
class AssignmentSet:
    """One Assignments stream: what its node has, and the changes that wait.

    Changes wait by key, the last one wins, so what waits is bounded by what is assigned to the node, however slow it
    is. Secrets and configs come before the first task that uses them, and go when the last user is gone or dead.
    """

    node_id: str
    reader: Reader
    sequence: int = 0
    _tasks: dict[str, bool] = field(default_factory=dict)
    """Tasks that are assigned, and whether the node was told already."""
    _held: dict[str, list[Key]] = field(default_factory=dict)
    _uses: dict[Key, _Use] = field(default_factory=dict)
    _pending: dict[Key, Item] = field(default_factory=dict)
    _removed_volumes: dict[str, VolumeAssignment] = field(default_factory=dict)

    @property
    def has_pending(self) -> bool:
        return bool(self._pending) or bool(self._removed_volumes)

    @property
    def task_ids(self) -> Iterable[str]:
        return self._tasks.keys()

    # Changes in

    def put(self, task: Task) -> None:
        """The task is new for the node or has changed in a way that concerns it."""
        id = task.id
        is_live = task.status.state <= _RUNNING
        if id not in self._tasks:
            if not is_live:
                return
            # Where a removal still waits, the node has a task of this id; the new one goes behind its secrets.
            self._tasks[id] = ("task", id) in self._pending
            self._pending.pop(("task", id), None)
            keys = needs(task)
            if keys:
                self._held[id] = keys
                self._acquire(keys)
        elif not is_live:
            self._release(id)
        self._pending["task", id] = task

    def drop(self, task_id: str) -> None:
        """The task is gone from the store."""
        was_sent = self._tasks.pop(task_id, None)
        if was_sent is None:
            return
        if was_sent:
            self._pending["task", task_id] = None
        else:
            self._pending.pop(("task", task_id), None)
        self._release(task_id)

    def put_volume(self, volume: Volume) -> None:
        """The volume's publish status for this node may have changed."""
        for status in volume.publish_status:
            if status.node_id != self.node_id:
                continue
            key = ("volume", volume.id)
            if status.state == VolumePublishStatus.PUBLISHED:
                keys: list[Key] = [("secret", secret.secret) for secret in volume.spec.secrets]
                if volume.id not in self._held:
                    self._held[volume.id] = keys
                    self._acquire(keys)
                self._removed_volumes.pop(volume.id, None)
                self._pending[key] = volume_assignment(volume, self.node_id)
            elif status.state == VolumePublishStatus.PENDING_NODE_UNPUBLISH:
                self._pending.pop(key, None)
                self._removed_volumes[volume.id] = volume_assignment(volume, self.node_id)
                self._release(volume.id)
            else:
                self._pending.pop(key, None)
                self._release(volume.id)

    def _acquire(self, keys: list[Key]) -> None:
        for key in keys:
            use = self._uses.setdefault(key, _Use())
            use.users += 1
            if use.is_sent:
                self._pending.pop(key, None)
            elif key not in self._pending:
                table, id = key
                found = self.reader.secret(id) if table == "secret" else self.reader.config(id)
                if found is not None:
                    self._pending[key] = found

    def _release(self, user: str) -> None:
        for key in self._held.pop(user, ()):
            use = self._uses[key]
            use.users -= 1
            if use.users:
                continue
            if use.is_sent:
                self._pending[key] = None
            else:
                self._pending.pop(key, None)
                del self._uses[key]

    # Messages out

    def complete(self) -> AssignmentsMessage:
        """The first message of the stream; what does not fit waits for `incremental`.

        An agent ends what a COMPLETE message leaves out. So everything that it may have started is in it, whatever
        the size (agents since Docker 18.09 take any), and only the rest keeps to the limit: tasks that nobody has
        accepted yet, and the secrets and configs of those that already have what they need.
        """
        message = self._message(AssignmentsMessage.COMPLETE)
        size = 0
        urgent: dict[Key, None] = {}
        for key, item in self._pending.items():
            if isinstance(item, VolumeAssignment):
                urgent[key] = None
            elif isinstance(item, Task) and item.status.state >= _ACCEPTED:
                if item.status.state < _STARTING:
                    urgent.update(dict.fromkeys(held for held in self._held.get(item.id, ()) if held in self._pending))
                urgent[key] = None
        for key in urgent:
            size += _size_of(self._pending[key])
            self._emit(message, key)
        self._fill(message, size)
        return message

    def incremental(self) -> AssignmentsMessage | None:
        """The next message, of about 1 MiB at most; None when nothing waits."""
        if not self._pending and not self._removed_volumes:
            return None
        message = self._message(AssignmentsMessage.INCREMENTAL)
        size = 0
        for assignment in self._removed_volumes.values():
            change = message.changes.add(action=AssignmentChange.REMOVE)
            change.assignment.volume.CopyFrom(assignment)
            size += assignment.ByteSize() + _CHANGE_OVERHEAD
        self._removed_volumes.clear()
        self._fill(message, size)
        return message

    def _fill(self, message: AssignmentsMessage, size: int) -> None:
        """Move what waits into the message, in order, up to the limit; one thing that is larger goes alone."""
        for key in list(self._pending):
            item = self._pending[key]
            own = _size_of(item)
            if size and size + own > MESSAGE_BYTES:
                break
            self._emit(message, key)
            size += own

    def _message(self, kind: AssignmentsMessage.Type.ValueType) -> AssignmentsMessage:
        applies_to = str(self.sequence) if self.sequence else ""
        self.sequence += 1
        return AssignmentsMessage(type=kind, applies_to=applies_to, results_in=str(self.sequence))

    def _emit(self, message: AssignmentsMessage, key: Key) -> None:
        """Move one change from what waits into the message."""
        table, id = key
        item = self._pending.pop(key)
        change = message.changes.add()
        assignment = change.assignment
        if item is None:
            change.action = AssignmentChange.REMOVE
            if table == "task":
                assignment.task.id = id
            elif table == "secret":
                assignment.secret.id = id
                del self._uses[key]
            else:
                assignment.config.id = id
                del self._uses[key]
            return
        if isinstance(item, Task):
            assignment.task.CopyFrom(item)
            self._tasks[id] = True
        elif isinstance(item, Secret):
            assignment.secret.CopyFrom(item)
            self._uses[key].is_sent = True
        elif isinstance(item, Config):
            assignment.config.CopyFrom(item)
            self._uses[key].is_sent = True
        else:
            assignment.volume.CopyFrom(item)


def _size_of(item: Item) -> int:
    """What a change takes in a message, at most."""
    return (item.ByteSize() if item is not None else MAX_ID_BYTES) + _CHANGE_OVERHEAD
