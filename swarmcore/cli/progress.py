"""How far a service is from what it asks for. Pure: a service and its tasks in, a line for each slot out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.api.types_pb2 import TaskState, UpdateStatus
from swarmcore.cli.task_table import state_name
from swarmcore.cli.text import enum_name

OUTDATED = "OUTDATED"
"""The state of a slot whose task is from before the update."""
_FAILED_UPDATE = (UpdateStatus.PAUSED, UpdateStatus.ROLLBACK_PAUSED)
_FAILED_TASK = (TaskState.FAILED, TaskState.REJECTED)
STAGES = (
    TaskState.NEW,
    TaskState.PENDING,
    TaskState.ASSIGNED,
    TaskState.ACCEPTED,
    TaskState.PREPARING,
    TaskState.READY,
    TaskState.STARTING,
    TaskState.RUNNING,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotProgress:
    """One replica, or one node of a global service."""

    key: str
    """The slot's number, or a node's id."""
    state: str = "NEW"
    stage: int = 0
    """Of `len(STAGES) - 1`."""
    node_id: str = ""
    error: str = ""
    is_done: bool = False
    has_failed: bool = False
    """Ended, and its restart policy gives it no other try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    slots: tuple[SlotProgress, ...]
    surplus: int = 0
    """Tasks that run and are not wanted any more."""
    is_converged: bool = False
    failure: str = ""
    """Why waiting longer is no use; empty while it is."""
    note: str = ""
    """What the service as a whole waits for."""

    @property
    def done(self) -> int:
        return sum(slot.is_done for slot in self.slots)


def progress(service: Service, tasks: Collection[Task], *, wants_rollback: bool = False) -> Progress:
    """Compare. `wants_rollback`: the user asked for a rollback, so that one is no failure."""
    mode = service.spec.WhichOneof("mode")
    is_job = mode in ("replicated_job", "global_job")
    if is_job:
        iteration = service.job_status.job_iteration.index
        tasks = [task for task in tasks if task.job_iteration.index == iteration]
    by_slot: dict[str, list[Task]] = {}
    for task in tasks:
        by_slot.setdefault(str(task.slot) if task.slot or mode == "replicated_job" else task.node_id, []).append(task)
    slots = {key: _slot(key, service, group, is_job=is_job) for key, group in by_slot.items()}
    counted = {key: slot for key, slot in slots.items() if slot is not None}
    if mode in ("replicated", "replicated_job"):
        job = service.spec.replicated_job
        wanted = job.total_completions if is_job else service.spec.replicated.replicas
        shown, surplus = _fill(counted, wanted, first=0 if is_job else 1)
        note = ""
    else:
        shown, surplus = list(counted.values()), 0
        note = "" if shown else "no node has a task of this service yet"
    failure = _update_failure(service, tasks, wants_rollback)
    waiting = _update_wait(service)
    if not failure and shown and all(slot.is_done or slot.has_failed for slot in shown):
        failure = _slots_failure(service, shown)
    complete = not failure and not surplus and not note and all(slot.is_done for slot in shown)
    return Progress(
        slots=tuple(shown),
        surplus=surplus,
        is_converged=complete and not waiting,
        failure=failure,
        note=note or (waiting if complete else ""),
    )


def is_current(service: Service, task: Task) -> bool:
    """Whether a task is as the service now asks. One that only stands elsewhere is: managers leave it where it fits."""
    versioned = service.HasField("spec_version") and task.HasField("spec_version")
    if versioned and task.spec_version.index == service.spec_version.index:
        return True
    if task.endpoint.spec != service.spec.endpoint:
        return False
    return task.spec == service.spec.task or _without_placement(task.spec) == _without_placement(service.spec.task)


def _without_placement(spec: TaskSpec) -> TaskSpec:
    bare = TaskSpec()
    bare.CopyFrom(spec)
    bare.ClearField("placement")
    if bare.HasField("container"):
        bare.container.ClearField("pull_options")
    return bare


def _age_order(task: Task) -> tuple[int, int]:
    return task.meta.created_at.ToNanoseconds(), task.meta.version.index


def _slot(key: str, service: Service, tasks: Iterable[Task], *, is_job: bool) -> SlotProgress | None:
    """None for a slot of which nothing is wanted any more."""
    ordered = sorted(tasks, key=_age_order)
    end = TaskState.COMPLETE if is_job else TaskState.RUNNING
    live = [task for task in ordered if task.desired_state <= end and task.status.state <= end]
    current = [task for task in live if is_current(service, task)]
    ended = [task for task in ordered if task.status.state > TaskState.RUNNING and is_current(service, task)]
    if not live:
        return _ended_slot(key, ordered[-1], is_current=bool(ended) and ended[-1] is ordered[-1])
    newest = (current or live)[-1]
    done = bool(current) and len(current) == len(live) and any(task.status.state == end for task in current)
    error = "" if done else newest.status.err or (ended[-1].status.err if ended else "")
    stages = [number for number, state in enumerate(STAGES) if state <= newest.status.state]
    return SlotProgress(
        key=key,
        state=state_name(newest.status.state) if current else OUTDATED,
        stage=max(stages) if current else 0,
        node_id=newest.node_id,
        error=error,
        is_done=done,
    )


def _ended_slot(key: str, last: Task, *, is_current: bool) -> SlotProgress | None:
    """A slot whose tasks have all ended: finished, given up, or about to get its next task."""
    if last.desired_state == TaskState.REMOVE:
        return None
    finished = is_current and last.status.state == TaskState.COMPLETE
    # While the task is still wanted, the orchestrator has not yet decided on a replacement.
    gave_up = is_current and last.desired_state > TaskState.COMPLETE and not finished
    return SlotProgress(
        key=key,
        state=state_name(last.status.state),
        stage=len(STAGES) - 1 if finished else 0,
        node_id=last.node_id,
        error="" if finished else last.status.err,
        is_done=finished and last.desired_state > TaskState.RUNNING,
        has_failed=gave_up,
    )


def _fill(slots: dict[str, SlotProgress], wanted: int, *, first: int) -> tuple[list[SlotProgress], int]:
    """The slots by number, with those that have no task yet; and how many there are too many."""
    ordered = sorted(slots.values(), key=lambda slot: int(slot.key) if slot.key.isdigit() else 0)
    surplus = [slot for slot in ordered[wanted:] if not slot.has_failed]
    kept = ordered[:wanted]
    number = first
    while len(kept) < wanted:
        if str(number) not in slots:
            kept.append(SlotProgress(key=str(number)))
        number += 1
    return sorted(kept, key=lambda slot: int(slot.key) if slot.key.isdigit() else 0), len(surplus)


def _update_failure(service: Service, tasks: Iterable[Task], wants_rollback: bool) -> str:
    status = service.update_status
    ended_badly = status.state in _FAILED_UPDATE or (
        status.state == UpdateStatus.ROLLBACK_COMPLETED and not wants_rollback
    )
    if not ended_badly:
        return ""
    if status.state == UpdateStatus.ROLLBACK_COMPLETED:
        reason = "the update failed and was rolled back"
        failed = [task for task in tasks if task.status.err and task.status.state in _FAILED_TASK]
        culprit = max(failed, key=_age_order, default=None)
    else:
        reason = f"{status.message or enum_name(UpdateStatus.UpdateState, status.state).lower()}"
        culprit = next((task for task in tasks if task.id in status.message and task.status.err), None)
    return f"{reason}: {culprit.status.err}" if culprit is not None else reason


def _update_wait(service: Service) -> str:
    if service.update_status.state == UpdateStatus.UPDATING:
        return "watching the new tasks for failures"
    if service.update_status.state == UpdateStatus.ROLLBACK_STARTED:
        return "watching the tasks of the rollback for failures"
    return ""


def _slots_failure(service: Service, slots: Collection[SlotProgress]) -> str:
    failed = [slot for slot in slots if slot.has_failed]
    if not failed:
        return ""
    reason = next((slot.error for slot in failed if slot.error), failed[0].state.lower())
    name = service.spec.annotations.name
    return f"{len(failed)} of {len(slots)} tasks of {name} ended and are not restarted: {reason}"
