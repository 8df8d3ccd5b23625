"""The task state machine: every observed state × desired state × outcome."""

from __future__ import annotations

from itertools import product

import pytest

from swarmcore.agent.steps import (
    Advance,
    Call,
    Delayed,
    Ended,
    Idle,
    Interrupted,
    Outcome,
    Succeeded,
    Verb,
    advanced,
    after,
    next_step,
    outcome_of,
    retry_delay,
    text_of,
    unresolved,
)
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.tasks import is_same_but_status
from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.plugin.executor import (
    ExitError,
    TaskPreparedError,
    TaskRejectedError,
    TaskStartedError,
    TemporaryError,
)

NOW = 1_700_000_000.25
STATES = [state for state in TaskState.values() if state != TaskState.REMOVE]
DESIRED = [TaskState.READY, TaskState.RUNNING, TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.REMOVE]

IDLE = "idle"
TABLE = {
    # observed            READY        RUNNING      COMPLETE     SHUTDOWN    REMOVE
    TaskState.NEW: ("accepted", "accepted", "accepted", "SHUTDOWN", "SHUTDOWN"),
    TaskState.PENDING: ("accepted", "accepted", "accepted", "SHUTDOWN", "SHUTDOWN"),
    TaskState.ASSIGNED: ("accepted", "accepted", "accepted", "SHUTDOWN", "SHUTDOWN"),
    TaskState.ACCEPTED: ("preparing", "preparing", "preparing", "SHUTDOWN", "SHUTDOWN"),
    TaskState.PREPARING: ("PREPARE", "PREPARE", "PREPARE", "SHUTDOWN", "SHUTDOWN"),
    TaskState.READY: (IDLE, "starting", "starting", "SHUTDOWN", "SHUTDOWN"),
    TaskState.STARTING: (IDLE, "START", "START", "SHUTDOWN", "SHUTDOWN"),
    TaskState.RUNNING: (IDLE, "WAIT", "WAIT", "SHUTDOWN", "SHUTDOWN"),
    TaskState.COMPLETE: (IDLE, IDLE, IDLE, IDLE, IDLE),
    TaskState.SHUTDOWN: (IDLE, IDLE, IDLE, IDLE, IDLE),
    TaskState.FAILED: (IDLE, IDLE, IDLE, IDLE, IDLE),
    TaskState.REJECTED: (IDLE, IDLE, IDLE, IDLE, IDLE),
    TaskState.ORPHANED: (IDLE, IDLE, IDLE, IDLE, IDLE),
}


def word_for(observed: TaskState.ValueType, desired: TaskState.ValueType) -> str:
    step = next_step(observed, desired)
    if isinstance(step, Idle):
        return IDLE
    return step.message if isinstance(step, Advance) else step.verb.name


@pytest.mark.parametrize("observed", STATES)
def test_each_pair_of_states_has_its_step(observed: TaskState.ValueType) -> None:
    assert tuple(word_for(observed, desired) for desired in DESIRED) == TABLE[observed]


def status_in(state: TaskState.ValueType, message: str = "", err: str = "") -> TaskStatus:
    return TaskStatus(state=state, message=message, err=err)


def call_made_in(state: TaskState.ValueType) -> Verb:
    step = next_step(state, TaskState.RUNNING)
    return step.verb if isinstance(step, Call) else Verb.SHUTDOWN


OUTCOMES: list[Outcome] = [Succeeded(), Interrupted(), Delayed("busy"), Ended("broken"), Ended("exit", exit_code=3)]


@pytest.mark.parametrize(
    ("observed", "outcome"), list(product([s for s in STATES if s <= TaskState.RUNNING], OUTCOMES))
)
def test_each_outcome_leaves_the_status_it_should(observed: TaskState.ValueType, outcome: Outcome) -> None:
    verb = call_made_in(observed)
    before = status_in(observed, message="before", err="old")

    new = after(before, verb, outcome, NOW)

    assert new.state >= before.state
    if isinstance(outcome, Succeeded):
        expected = {
            Verb.PREPARE: (TaskState.READY, "prepared"),
            Verb.START: (TaskState.RUNNING, "started"),
            Verb.WAIT: (TaskState.COMPLETE, "finished"),
            Verb.SHUTDOWN: (TaskState.SHUTDOWN, "shutdown"),
        }
        assert (new.state, new.message) == expected[verb]
        assert new.err == ""
    elif isinstance(outcome, Interrupted):
        assert new is before
    elif isinstance(outcome, Delayed):
        assert (new.state, new.message, new.err) == (observed, "before", "busy")
    else:
        assert new.state == (TaskState.REJECTED if observed < TaskState.STARTING else TaskState.FAILED)
        assert (new.message, new.err) == ("before", outcome.error)
        assert new.container.exit_code == (outcome.exit_code or 0)


@pytest.mark.parametrize("state", [state for state in STATES if state > TaskState.RUNNING])
@pytest.mark.parametrize("outcome", [Ended("late"), Ended("late", exit_code=1)])
def test_a_final_state_stays(state: TaskState.ValueType, outcome: Outcome) -> None:
    before = status_in(state, message="m", err="e")

    assert after(before, Verb.WAIT, outcome, NOW) is before
    assert unresolved(before, "late", NOW) is before


def test_nothing_goes_backwards() -> None:
    before = status_in(TaskState.RUNNING)

    assert advanced(before, TaskState.ACCEPTED, "accepted", NOW).state == TaskState.RUNNING


def test_the_time_changes_only_with_something_else() -> None:
    before = after(status_in(TaskState.PREPARING), Verb.PREPARE, Delayed("busy"), NOW)

    assert (before.timestamp.seconds, before.timestamp.nanos) == (1_700_000_000, 250_000_000)
    assert after(before, Verb.PREPARE, Delayed("busy"), NOW + 1) is before


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (TaskState.ASSIGNED, TaskState.REJECTED),
        (TaskState.READY, TaskState.REJECTED),
        (TaskState.STARTING, TaskState.FAILED),
        (TaskState.RUNNING, TaskState.FAILED),
    ],
)
def test_a_task_without_controller_is_over(state: TaskState.ValueType, expected: TaskState.ValueType) -> None:
    new = unresolved(status_in(state), "no such runtime", NOW)

    assert (new.state, new.message, new.err) == (expected, "resolving controller failed", "no such runtime")


def wrapped(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("verb", "error", "expected"),
    [
        (Verb.PREPARE, None, Succeeded()),
        (Verb.PREPARE, TaskPreparedError("was"), Succeeded()),
        (Verb.START, TaskStartedError("was"), Succeeded()),
        (Verb.START, TaskPreparedError("odd"), Ended("odd")),
        (Verb.PREPARE, TemporaryError("registry busy"), Delayed("registry busy")),
        (Verb.PREPARE, wrapped(RuntimeError("x"), TemporaryError("engine away")), Delayed("engine away")),
        (Verb.PREPARE, TaskRejectedError("no such image"), Ended("no such image")),
        (Verb.WAIT, ExitError(3), Ended("task: non-zero exit (3)", exit_code=3)),
        (Verb.WAIT, ExitError(1, "unhealthy"), Ended("task: non-zero exit (1): unhealthy", exit_code=1)),
        (Verb.WAIT, KeyError("bug"), Ended("KeyError: 'bug'")),
        (Verb.START, ValueError(), Ended("ValueError")),
    ],
)
def test_what_a_call_raises_has_a_meaning(verb: Verb, error: Exception | None, expected: Outcome) -> None:
    assert outcome_of(verb, error) == expected


def test_a_users_view_of_an_error_is_one_line_of_bounded_length() -> None:
    text = text_of(TaskRejectedError("a\nb  c" + "x" * 10_000))

    assert text.startswith("a b cx") and len(text) == 4096


def test_retries_slow_down_to_a_limit() -> None:
    assert [retry_delay(attempt) for attempt in (1, 2, 3, 6, 1000)] == [1, 2, 4, 30, 30]


def test_status_and_meta_do_not_make_another_task() -> None:
    old = Task(id="t", desired_state=TaskState.RUNNING)
    new = Task(id="t", desired_state=TaskState.RUNNING)
    new.status.state = TaskState.RUNNING
    new.meta.version.index = 9

    assert is_same_but_status(old, new)
    new.annotations.name = "other"
    assert not is_same_but_status(old, new)
