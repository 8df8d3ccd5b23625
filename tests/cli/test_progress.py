"""When a service runs as asked, when it never will, and what is shown in between."""

from __future__ import annotations

import pytest

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import TaskState, UpdateStatus
from swarmcore.cli.progress import progress
from swarmcore.testing.control_socket import a_task


@pytest.fixture
def service() -> Service:
    made = Service(id="s1")
    made.spec.annotations.name = "web"
    made.spec.replicated.replicas = 2
    made.spec.task.container.image = "nginx:1"
    made.spec_version.index = 5
    return made


def ended(task: Task, state: TaskState.ValueType, err: str = "") -> Task:
    task.status.state = state
    task.desired_state = TaskState.SHUTDOWN
    task.status.err = err
    return task


def newer(task: Task) -> Task:
    task.meta.created_at.seconds = 10
    return task


def test_nothing_there_yet_is_a_row_for_each_replica(service: Service) -> None:
    state = progress(service, [])

    assert [slot.key for slot in state.slots] == ["1", "2"]
    assert (state.is_converged, state.failure, state.done) == (False, "", 0)


def test_all_running_at_this_version_is_converged(service: Service) -> None:
    assert progress(service, [a_task("a", service, 1), a_task("b", service, 2)]).is_converged


def test_slots_may_have_gaps(service: Service) -> None:
    assert progress(service, [a_task("a", service, 2), a_task("b", service, 7)]).is_converged


def test_a_task_of_the_spec_before_is_not_what_was_asked_for(service: Service) -> None:
    old = a_task("a", service, 1)
    service.spec.task.container.image = "nginx:2"
    service.spec_version.index = 9

    state = progress(service, [old, a_task("b", service, 2)])

    assert (state.done, state.is_converged, state.slots[0].state) == (1, False, "OUTDATED")


def test_a_task_that_only_the_version_tells_apart_counts(service: Service) -> None:
    old = [a_task("a", service, 1), a_task("b", service, 2)]
    service.spec_version.index = 9
    service.spec.task.placement.constraints.append("node.role==worker")

    assert progress(service, old).is_converged


def test_the_old_task_must_be_told_to_stop(service: Service) -> None:
    old = a_task("old", service, 1)
    service.spec.task.container.image = "nginx:2"
    service.spec_version.index = 9
    tasks = [old, newer(a_task("new", service, 1)), a_task("b", service, 2)]

    assert not progress(service, tasks).is_converged
    old.desired_state = TaskState.SHUTDOWN
    assert progress(service, tasks).is_converged


def test_too_many_tasks_are_waited_for(service: Service) -> None:
    tasks = [a_task(name, service, slot) for slot, name in enumerate("abc", start=1)]

    state = progress(service, tasks)
    tasks[2].desired_state = TaskState.REMOVE

    assert (state.surplus, state.is_converged) == (1, False)
    assert progress(service, tasks).is_converged


def test_no_replicas_converge_once_none_is_wanted(service: Service) -> None:
    service.spec.replicated.replicas = 0

    assert progress(service, []).is_converged


def test_what_keeps_a_task_waiting_is_shown(service: Service) -> None:
    waiting = a_task("a", service, 1, state=TaskState.PENDING)
    waiting.status.err = "no suitable node (unsupported platform on 1 node)"

    assert progress(service, [waiting]).slots[0].error == waiting.status.err


def test_why_the_task_before_ended_is_shown_while_the_next_one_waits(service: Service) -> None:
    before = ended(a_task("a", service, 1), TaskState.REJECTED, "no such image: nginx:1")
    after = newer(a_task("b", service, 1, state=TaskState.READY))

    state = progress(service, [before, after])

    assert state.slots[0].error == "no such image: nginx:1"
    assert not state.failure


def test_tasks_that_are_not_restarted_end_the_waiting(service: Service) -> None:
    failed = ended(a_task("a", service, 1), TaskState.FAILED, "task: non-zero exit (1)")

    still_one_on_its_way = progress(service, [failed, a_task("b", service, 2, state=TaskState.STARTING)])
    all_decided = progress(service, [failed, a_task("b", service, 2)])

    assert not still_one_on_its_way.failure
    assert all_decided.failure == "1 of 2 tasks of web ended and are not restarted: task: non-zero exit (1)"


def test_a_failure_that_nobody_has_looked_at_yet_is_not_final(service: Service) -> None:
    fresh = a_task("a", service, 1, state=TaskState.FAILED)

    state = progress(service, [fresh, a_task("b", service, 2)])

    assert (state.failure, state.is_converged) == ("", False)


def test_a_task_that_finished_and_is_not_restarted_is_done(service: Service) -> None:
    tasks = [ended(a_task("a", service, 1), TaskState.COMPLETE), a_task("b", service, 2)]

    assert progress(service, tasks).is_converged


@pytest.mark.parametrize("state", [UpdateStatus.PAUSED, UpdateStatus.ROLLBACK_PAUSED])
def test_an_update_that_did_not_work_is_a_failure_with_the_error_of_its_task(
    service: Service, state: UpdateStatus.UpdateState.ValueType
) -> None:
    service.update_status.state = state
    service.update_status.message = "update paused due to failure or early termination of task t9"
    culprit = ended(a_task("t9", service, 1), TaskState.FAILED, "task: non-zero exit (1)")

    assert progress(service, [culprit]).failure == (
        "update paused due to failure or early termination of task t9: task: non-zero exit (1)"
    )


def test_an_update_is_over_when_the_manager_has_watched_long_enough(service: Service) -> None:
    tasks = [a_task("a", service, 1), a_task("b", service, 2)]
    service.update_status.state = UpdateStatus.UPDATING
    watching = progress(service, tasks)
    service.update_status.state = UpdateStatus.COMPLETED

    assert (watching.is_converged, watching.note) == (False, "watching the new tasks for failures")
    assert progress(service, tasks).is_converged


def test_an_update_that_was_rolled_back_says_what_failed_last(service: Service) -> None:
    service.update_status.state = UpdateStatus.ROLLBACK_COMPLETED
    service.update_status.message = "rollback completed"
    old = ended(a_task("old", service, 1), TaskState.FAILED, "task: non-zero exit (1)")
    new = newer(ended(a_task("new", service, 1), TaskState.REJECTED, "no such image"))

    state = progress(service, [new, old, a_task("a", service, 1), a_task("b", service, 2)])

    assert state.failure == "the update failed and was rolled back: no such image"


def test_a_rollback_that_was_asked_for_is_a_success(service: Service) -> None:
    service.update_status.state = UpdateStatus.ROLLBACK_COMPLETED

    assert progress(service, [a_task("a", service, 1), a_task("b", service, 2)], wants_rollback=True).is_converged


def test_a_global_service_has_a_row_for_each_node(service: Service) -> None:
    getattr(service.spec, "global").SetInParent()

    none_yet = progress(service, [])
    state = progress(service, [a_task("a", service, 0, node="n1"), a_task("b", service, 0, node="n2")])

    assert (none_yet.is_converged, none_yet.note) == (False, "no node has a task of this service yet")
    assert ([slot.key for slot in state.slots], state.is_converged) == (["n1", "n2"], True)


def test_a_job_is_done_when_its_tasks_are_complete(service: Service) -> None:
    service.spec.replicated_job.total_completions = 2
    service.spec.replicated_job.max_concurrent = 1
    service.job_status.job_iteration.index = 1
    tasks = [ended(a_task("a", service, 0), TaskState.COMPLETE), a_task("b", service, 1, state=TaskState.RUNNING)]
    for task in tasks:
        task.job_iteration.index = 1
        task.desired_state = TaskState.COMPLETE

    half = progress(service, tasks)
    tasks[1].status.state = TaskState.COMPLETE

    assert (half.done, half.is_converged) == (1, False)
    assert progress(service, tasks).is_converged
