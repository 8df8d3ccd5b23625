"""Which tasks are over and may be deleted."""

from __future__ import annotations

import pytest

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.orchestrator.reaper import history_limit, is_finished, surplus

S = TaskState


def task(id: str, state: TaskState.ValueType, desired: TaskState.ValueType = S.SHUTDOWN, at: int = 0) -> Task:
    made = Task(id=id, service_id="web", slot=1, desired_state=desired)
    made.status.state = state
    made.status.timestamp.FromSeconds(1000 + at)
    return made


@pytest.mark.parametrize(
    ("state", "desired", "service_id", "expected"),
    [
        (S.SHUTDOWN, S.REMOVE, "web", True),
        (S.NEW, S.REMOVE, "web", True),
        (S.PENDING, S.REMOVE, "web", True),
        (S.ASSIGNED, S.REMOVE, "web", False),
        (S.RUNNING, S.REMOVE, "web", False),
        (S.ORPHANED, S.REMOVE, "web", True),
        (S.SHUTDOWN, S.SHUTDOWN, "web", False),
        (S.ORPHANED, S.RUNNING, "web", False),
        (S.ORPHANED, S.RUNNING, "", True),
        (S.FAILED, S.RUNNING, "", False),
    ],
)
def test_what_was_removed_goes_once_it_stopped(
    state: TaskState.ValueType, desired: TaskState.ValueType, service_id: str, expected: bool
) -> None:
    made = task("t", state, desired)
    made.service_id = service_id

    assert is_finished(made) is expected


@pytest.mark.parametrize(
    ("max_attempts", "retention", "expected"), [(0, 5, 5), (2, 5, 3), (9, 5, 10), (0, -1, -1), (0, 0, 0)]
)
def test_a_limit_of_attempts_decides_over_the_cluster(max_attempts: int, retention: int, expected: int) -> None:
    service = Service(id="web")
    service.spec.task.restart.max_attempts = max_attempts

    assert history_limit(service, retention) == expected


def test_a_service_that_is_gone_keeps_what_the_cluster_keeps() -> None:
    assert history_limit(None, 5) == 5


@pytest.mark.parametrize(
    ("tasks", "limit", "deleted", "is_open"),
    [
        pytest.param([task("a", S.FAILED), task("b", S.RUNNING)], 2, [], False, id="within the limit"),
        pytest.param(
            [task("a", S.FAILED, at=2), task("b", S.FAILED, at=1), task("c", S.RUNNING, S.RUNNING, at=3)],
            2,
            ["b"],
            False,
            id="the oldest goes",
        ),
        pytest.param(
            [task("a", S.RUNNING), task("b", S.RUNNING, S.RUNNING)], 1, [], True, id="what runs stays, for now"
        ),
        pytest.param(
            [task("a", S.PENDING), task("b", S.RUNNING, S.RUNNING)], 1, ["a"], False, id="what will never run goes"
        ),
        pytest.param([task("a", S.PENDING, S.RUNNING)], 0, [], False, id="what may still run stays"),
        pytest.param([task("a", S.FAILED), task("b", S.RUNNING, S.RUNNING)], 0, ["a"], False, id="limit zero"),
        pytest.param(
            [task("a", S.SHUTDOWN), task("b", S.COMPLETE, S.RUNNING, at=1)], 0, ["a"], False, id="the last one stays"
        ),
        pytest.param(
            [task("a", S.RUNNING, S.RUNNING), task("b", S.STARTING, S.RUNNING, at=1)], 1, [], True, id="two that run"
        ),
        pytest.param([task("a", S.FAILED)] * 50, -1, [], False, id="no limit"),
    ],
)
def test_a_slot_keeps_its_newest_tasks(tasks: list[Task], limit: int, deleted: list[str], is_open: bool) -> None:
    doomed, is_still_open = surplus(tasks, limit)

    assert ([each.id for each in doomed], is_still_open) == (deleted, is_open)
