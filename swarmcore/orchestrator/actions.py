"""What planners ask for, and how it is written: each action is one atomic step, and says nothing twice.

An action was planned on what was known a moment ago. Carried out in a transaction, it reads again and gives way to
what happened meanwhile: a desired state never goes down, a task of a service that changed is not made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Cluster, Service, Task
from swarmcore.api.types_pb2 import TaskState, UpdateStatus
from swarmcore.store.allocation import needs_nothing, release
from swarmcore.store.transaction import Transaction


class TaskTemplate:
    """New tasks of one service as it is now (SwarmKit: 4.1)."""

    __slots__ = ("_released", "_task", "service")

    def __init__(self, service: Service, cluster: Cluster | None) -> None:
        self.service = service
        task = Task(service_id=service.id, desired_state=TaskState.RUNNING)
        task.spec.CopyFrom(service.spec.task)
        task.service_annotations.CopyFrom(service.spec.annotations)
        if service.HasField("spec_version"):
            task.spec_version.CopyFrom(service.spec_version)
        task.endpoint.SetInParent()
        if service.spec.HasField("endpoint"):
            task.endpoint.spec.CopyFrom(service.spec.endpoint)
        if service.spec.task.HasField("log_driver"):
            task.log_driver.CopyFrom(service.spec.task.log_driver)
        elif cluster is not None and cluster.spec.task_defaults.HasField("log_driver"):
            task.log_driver.CopyFrom(cluster.spec.task_defaults.log_driver)
        if service.HasField("job_status"):
            task.job_iteration.CopyFrom(service.job_status.job_iteration)
            task.desired_state = TaskState.COMPLETE
        task.status.state = TaskState.NEW
        task.status.message = "created"
        self._task = self._released = task
        if needs_nothing(service):
            self._released = Task()
            self._released.CopyFrom(task)
            release(self._released, service, task.status.timestamp)

    def make(self, action: CreateTask, now: Timestamp, service: Service | None) -> Task:
        """A new task; `service` is what the store holds at the moment of writing.

        It is PENDING at once where nothing has to be allocated for it. A service that changed in any way meanwhile is
        the allocator's to judge: then it is NEW.
        """
        task = Task()
        task.CopyFrom(self._released if service is self.service else self._task)
        task.id = action.task_id
        if action.slot:
            task.slot = action.slot
        if action.node_id:
            task.node_id = action.node_id
        if action.is_held_back:
            task.desired_state = TaskState.READY
        task.status.timestamp.CopyFrom(now)
        return task

    def is_current(self, service: Service | None) -> bool:
        """Whether a task made now would be what `service`, as it is in the store, asks for."""
        if service is self.service:
            return True
        return service is not None and (
            service.spec_version == self.service.spec_version and service.job_status == self.service.job_status
        )


@dataclass(slots=True, kw_only=True, eq=False)
class CreateTask:
    """Make a task; in the same step shut down what it replaces. Not frozen: that would triple what making one costs."""

    task_id: str
    template: TaskTemplate
    slot: int = 0
    node_id: str = ""
    """Where it has to run; empty where the scheduler chooses."""
    is_held_back: bool = False
    """Desired state READY: prepared, and started later."""
    shuts_down: tuple[str, ...] = ()
    """Tasks whose desired state becomes SHUTDOWN."""
    restarts: str = ""
    """The task that is restarted by this: shut down too, and where it is gone or settled, nothing is made."""


@dataclass(frozen=True, slots=True)
class SetDesiredState:
    """Raise a task's desired state; never lowers it."""

    task_id: str
    state: TaskState.ValueType


@dataclass(frozen=True, slots=True)
class DeleteTask:
    task_id: str


@dataclass(frozen=True, slots=True)
class ExplainTask:
    """Say on the task why nothing happens with it."""

    task_id: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUpdateStatus:
    """Write where an update is; nothing where the service has another spec by now."""

    service_id: str
    spec_version: int
    state: UpdateStatus.UpdateState.ValueType
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """Go back to the spec before this one; nothing where the service has another spec by now, or none before it."""

    service_id: str
    spec_version: int
    message: str


Action: TypeAlias = CreateTask | SetDesiredState | DeleteTask | ExplainTask | SetUpdateStatus | RollBack

_FINISHED = (UpdateStatus.COMPLETED, UpdateStatus.ROLLBACK_COMPLETED)


def carry_out(tx: Transaction, action: Action, now: Timestamp) -> None:
    """Write one action. `now` is what statuses say."""
    match action:
        case CreateTask():
            _create(tx, action, now)
        case SetDesiredState():
            _raise_desired(tx, action.task_id, action.state)
        case DeleteTask():
            if action.task_id in tx.task:
                tx.task.delete(action.task_id)
        case ExplainTask():
            _explain(tx, action)
        case SetUpdateStatus():
            _set_update_status(tx, action, now)
        case RollBack():
            _roll_back(tx, action)


def _create(tx: Transaction, action: CreateTask, now: Timestamp) -> None:
    service = tx.service.get(action.template.service.id)
    if not action.template.is_current(service):
        return
    if action.restarts:
        old = tx.task.get(action.restarts)
        if old is None or old.desired_state > TaskState.COMPLETE:
            return
        _raise_desired(tx, action.restarts, TaskState.SHUTDOWN)
    for task_id in action.shuts_down:
        _raise_desired(tx, task_id, TaskState.SHUTDOWN)
    tx.task.create(action.template.make(action, now, service))


def _raise_desired(tx: Transaction, task_id: str, state: TaskState.ValueType) -> None:
    old = tx.task.get(task_id)
    if old is None or old.desired_state >= state:
        return
    task = Task()
    task.CopyFrom(old)
    task.desired_state = state
    tx.task.update(task)


def _explain(tx: Transaction, action: ExplainTask) -> None:
    old = tx.task.get(action.task_id)
    if old is None or old.status.message == action.message:
        return
    task = Task()
    task.CopyFrom(old)
    task.status.message = action.message
    tx.task.update(task)


def _set_update_status(tx: Transaction, action: SetUpdateStatus, now: Timestamp) -> None:
    old = tx.service.get(action.service_id)
    if old is None or old.spec_version.index != action.spec_version:
        return
    service = Service()
    service.CopyFrom(old)
    service.update_status.state = action.state
    service.update_status.message = action.message
    if not service.update_status.HasField("started_at"):
        service.update_status.started_at.CopyFrom(now)
    if action.state in _FINISHED:
        service.update_status.completed_at.CopyFrom(now)
    tx.service.update(service)


def _roll_back(tx: Transaction, action: RollBack) -> None:
    old = tx.service.get(action.service_id)
    if old is None or old.spec_version.index != action.spec_version or not old.HasField("previous_spec"):
        return
    service = Service()
    service.CopyFrom(old)
    service.update_status.state = UpdateStatus.ROLLBACK_STARTED
    service.update_status.message = action.message
    service.spec.CopyFrom(old.previous_spec)
    service.spec_version.CopyFrom(old.previous_spec_version)
    # A rollback can't be rolled back by itself again.
    service.ClearField("previous_spec")
    service.ClearField("previous_spec_version")
    tx.service.update(service)
