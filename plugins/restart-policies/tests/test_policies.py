"""The two policies, in tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarmcore_restart_policies.policies import BackoffPolicy, Configuration, DefaultPolicy

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import RestartPolicy, TaskState
from swarmcore.plugin.restart import NoRestart, Restart, RestartRecord

ANY, ON_FAILURE, NONE = RestartPolicy.ANY, RestartPolicy.ON_FAILURE, RestartPolicy.NONE
COMPLETE, FAILED, RUNNING = TaskState.COMPLETE, TaskState.FAILED, TaskState.RUNNING
NOW = 1000.0


def ended(
    state: TaskState.ValueType = FAILED,
    condition: RestartPolicy.RestartCondition.ValueType | None = ANY,
    *,
    delay: float | None = None,
    max_attempts: int = 0,
    window: float = 0,
    is_job: bool = False,
    applied_at: float = NOW,
) -> Task:
    task = Task(id="t")
    task.status.state = state
    if condition is not None:
        task.spec.restart.condition = condition
    if delay is not None:
        task.spec.restart.delay.FromNanoseconds(int(delay * 1e9))
    if max_attempts:
        task.spec.restart.max_attempts = max_attempts
    if window:
        task.spec.restart.window.FromNanoseconds(int(window * 1e9))
    if is_job:
        task.job_iteration.index = 0
        task.job_iteration.SetInParent()
    task.status.applied_at.FromNanoseconds(int(applied_at * 1e9))
    return task


def at(*times: float) -> Sequence[RestartRecord]:
    return [RestartRecord(time) for time in times]


def is_restarted(task: Task, history: Sequence[RestartRecord] = ()) -> bool:
    decision = DefaultPolicy().decide(task=task, service=None, history=history, now=NOW)
    return isinstance(decision, Restart)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (ended(FAILED, None), True),
        (ended(COMPLETE, None), True),
        (ended(FAILED, ANY), True),
        (ended(COMPLETE, ANY), True),
        (ended(FAILED, ON_FAILURE), True),
        (ended(TaskState.REJECTED, ON_FAILURE), True),
        (ended(RUNNING, ON_FAILURE), True),
        (ended(COMPLETE, ON_FAILURE), False),
        (ended(FAILED, NONE), False),
        (ended(RUNNING, NONE), False),
        (ended(COMPLETE, ANY, is_job=True), False),
        (ended(FAILED, ANY, is_job=True), True),
        (ended(COMPLETE, None, is_job=True), False),
    ],
)
def test_the_condition_decides(task: Task, expected: bool) -> None:
    assert is_restarted(task) is expected


@pytest.mark.parametrize(("delay", "expected"), [(None, 5.0), (0.0, 0.0), (0.25, 0.25), (90.0, 90.0)])
def test_the_delay_is_what_the_spec_says_and_five_seconds_where_it_says_nothing(
    delay: float | None, expected: float
) -> None:
    decision = DefaultPolicy().decide(task=ended(delay=delay), service=None, history=(), now=NOW)

    assert decision == Restart(expected)


@pytest.mark.parametrize(
    ("max_attempts", "window", "history", "expected"),
    [
        (0, 0, at(*range(500)), True),
        (3, 0, at(1, 2), True),
        (3, 0, at(1, 2, 3), False),
        (3, 60, at(1, 2, 3), True),
        (3, 60, at(950, 960, 970), False),
        (3, 60, at(940, 960, 970), True),
        (3, 60, at(941, 960, 970), False),
        (3, 60, at(960, 970, 1000), True),
    ],
)
def test_attempts_are_counted_in_the_window(
    max_attempts: int, window: float, history: Sequence[RestartRecord], expected: bool
) -> None:
    assert is_restarted(ended(max_attempts=max_attempts, window=window), history) is expected


def test_a_refusal_says_why() -> None:
    task = ended(max_attempts=2, window=30)

    decision = DefaultPolicy().decide(task=task, service=None, history=at(980, 990), now=NOW)

    assert decision == NoRestart("2 restarts within 30 s allowed, and 2 made")


def test_backoff_grows_from_restart_to_restart_up_to_its_cap() -> None:
    policy = BackoffPolicy(Configuration(factor=3, cap_seconds=100))
    times = [900.0 + number for number in range(6)]

    delays = [
        policy.decide(task=ended(delay=2), service=None, history=at(*times[:number]), now=NOW) for number in range(6)
    ]

    assert delays == [Restart(2), Restart(6), Restart(18), Restart(54), Restart(100), Restart(100)]


def test_backoff_forgets_restarts_of_long_ago() -> None:
    policy = BackoffPolicy(Configuration(reset_seconds=50))

    decision = policy.decide(task=ended(delay=2), service=None, history=at(100, 200, 980), now=NOW)

    assert decision == Restart(4)


def test_backoff_keeps_to_condition_and_attempts() -> None:
    policy = BackoffPolicy(Configuration())

    refusals = [
        policy.decide(task=ended(COMPLETE, ON_FAILURE), service=None, history=(), now=NOW),
        policy.decide(task=ended(max_attempts=1), service=None, history=at(999), now=NOW),
    ]

    assert all(isinstance(refusal, NoRestart) for refusal in refusals)


@given(st.lists(st.floats(0, 2000, allow_nan=False), max_size=3000), st.floats(0, 1e6), st.floats(0, 1e9))
def test_backoff_always_answers_a_delay_within_its_cap(times: list[float], delay: float, factor: float) -> None:
    policy = BackoffPolicy(Configuration(factor=factor, reset_seconds=1e9))

    decision = policy.decide(task=ended(delay=delay), service=None, history=at(*times), now=NOW)

    assert isinstance(decision, Restart)
    assert 0 <= decision.delay <= 300
