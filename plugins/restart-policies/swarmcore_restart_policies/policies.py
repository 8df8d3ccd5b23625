"""The two policies. Pure: the same task, history and time give the same answer (SwarmKit: part 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import RestartPolicy, TaskState
from swarmcore.plugin.restart import NoRestart, Restart, RestartDecision, RestartRecord

DEFAULT_DELAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """How `backoff` grows."""

    factor: float = 2.0
    """What each restart multiplies the delay by."""
    cap_seconds: float = 300.0
    """The longest delay."""
    reset_seconds: float = 600.0
    """Restarts longer ago than this do not count. A service's own window takes its place."""


class DefaultPolicy:
    """Restarts by condition, after the delay, while attempts are left: `any` and 5 seconds where nothing is said."""

    name = "default"

    def decide(
        self, *, task: Task, service: Service | None, history: Sequence[RestartRecord], now: float
    ) -> RestartDecision:
        refusal = refusal_of(task, history, now)
        return refusal if refusal is not None else Restart(delay_of(task))


class BackoffPolicy:
    """As `default`, with a delay that grows from restart to restart, up to a cap."""

    name = "backoff"

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def decide(
        self, *, task: Task, service: Service | None, history: Sequence[RestartRecord], now: float
    ) -> RestartDecision:
        refusal = refusal_of(task, history, now)
        if refusal is not None:
            return refusal
        config = self.configuration
        window = seconds_of(task.spec.restart.window) or config.reset_seconds
        recent = len(within(history, ended_at(task, now), window))
        cap = max(config.cap_seconds, 0.0)
        try:
            delay = delay_of(task) * max(config.factor, 1.0) ** recent
        except OverflowError:
            delay = cap
        return Restart(min(delay, cap))


def refusal_of(task: Task, history: Sequence[RestartRecord], now: float) -> NoRestart | None:
    """Why the task gets no successor; None where it gets one."""
    condition = RestartPolicy.ANY
    if task.spec.HasField("restart"):
        condition = task.spec.restart.condition
    if condition == RestartPolicy.NONE:
        return NoRestart("the restart condition is none")
    is_job = task.HasField("job_iteration")
    if (condition == RestartPolicy.ON_FAILURE or is_job) and task.status.state == TaskState.COMPLETE:
        return NoRestart("the task completed")
    limit = task.spec.restart.max_attempts
    if not limit:
        return None
    window = seconds_of(task.spec.restart.window)
    attempts = len(within(history, ended_at(task, now), window)) if window > 0 else len(history)
    if attempts < limit:
        return None
    word = "restart" if limit == 1 else "restarts"
    within_window = f" within {window:g} s" if window > 0 else ""
    return NoRestart(f"{limit} {word}{within_window} allowed, and {attempts} made")


def delay_of(task: Task) -> float:
    """The delay of the task's spec, in seconds; one that is set to zero is zero."""
    if not task.spec.restart.HasField("delay"):
        return DEFAULT_DELAY_SECONDS
    return max(0.0, seconds_of(task.spec.restart.delay))


def within(history: Sequence[RestartRecord], reference: float, window: float) -> list[RestartRecord]:
    """The restarts in the window that ends with `reference`, both ends left out."""
    return [record for record in history if reference - window < record.at < reference]


def ended_at(task: Task, now: float) -> float:
    """When the task's last status was applied, else when it was set; `now` where neither is known."""
    status = task.status
    for name in ("applied_at", "timestamp"):
        stamp: Timestamp = getattr(status, name)
        if stamp.seconds > 0:
            return stamp.seconds + stamp.nanos / 1e9
    return now


def seconds_of(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
