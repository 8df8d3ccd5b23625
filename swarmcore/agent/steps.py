"""The task state machine: what to do next with a task, and what an outcome makes of its status (SwarmKit: 9.2).

Pure. `next_step` looks at two states and names a step; the driver carries it out; `after` turns its outcome into the
next status. Observed states only rise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.errors import SwarmError
from swarmcore.plugin.executor import (
    ExitError,
    TaskPreparedError,
    TaskStartedError,
    TemporaryError,
)

MAX_ERROR_CHARS: Final = 4096
"""An engine's words end up in the replicated store; they are cut there."""
FIRST_RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 30.0


class Verb(Enum):
    """Calls of a Controller."""

    PREPARE = "prepare"
    START = "start"
    WAIT = "wait"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do until the task changes."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Go on to a state; no call is needed."""

    state: TaskState.ValueType
    message: str


@dataclass(frozen=True, slots=True)
class Call:
    """Make a call of the Controller."""

    verb: Verb


Step = Idle | Advance | Call

_IDLE: Final = Idle()
_ACCEPT: Final = Advance(TaskState.ACCEPTED, "accepted")
_PREPARING: Final = Advance(TaskState.PREPARING, "preparing")
_STARTING: Final = Advance(TaskState.STARTING, "starting")
_CALLS: Final[Mapping[TaskState.ValueType, Call]] = MappingProxyType(
    {
        TaskState.PREPARING: Call(Verb.PREPARE),
        TaskState.STARTING: Call(Verb.START),
        TaskState.RUNNING: Call(Verb.WAIT),
    }
)
_SHUTDOWN: Final = Call(Verb.SHUTDOWN)

_DONE: Final[Mapping[Verb, tuple[TaskState.ValueType, str]]] = MappingProxyType(
    {
        Verb.PREPARE: (TaskState.READY, "prepared"),
        Verb.START: (TaskState.RUNNING, "started"),
        Verb.WAIT: (TaskState.COMPLETE, "finished"),
        Verb.SHUTDOWN: (TaskState.SHUTDOWN, "shutdown"),
    }
)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The call returned, or its step had been done before."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The driver ended the call, because the task changed or the agent stops."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """It did not work for now; the same step is due again."""

    error: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The task is over."""

    error: str
    exit_code: int | None = None
    """Known when what the task ran ended by itself."""


Outcome = Succeeded | Interrupted | Delayed | Ended


def is_final(state: TaskState.ValueType) -> bool:
    """Whether a task in this observed state will never run again."""
    return state > TaskState.RUNNING


def next_step(observed: TaskState.ValueType, desired: TaskState.ValueType) -> Step:
    """The one step that brings a task closer to its desired state.

    A call that has begun is finished beyond the desired state: PREPARING, STARTING and RUNNING have no pause.
    """
    if desired >= TaskState.SHUTDOWN:
        return _IDLE if is_final(observed) else _SHUTDOWN
    if observed > desired:
        return _IDLE
    call = _CALLS.get(observed)
    if call is not None:
        return call
    if observed >= desired:
        return _IDLE
    if observed <= TaskState.ASSIGNED:
        return _ACCEPT
    if observed == TaskState.ACCEPTED:
        return _PREPARING
    if observed == TaskState.READY:
        return _STARTING
    return _IDLE


def outcome_of(verb: Verb, error: Exception | None) -> Outcome:
    """What a call's end means; `error` is what it raised."""
    if error is None:
        return Succeeded()
    if isinstance(error, TaskPreparedError) and verb is Verb.PREPARE:
        return Succeeded()
    if isinstance(error, TaskStartedError) and verb is Verb.START:
        return Succeeded()
    temporary = _temporary_cause(error)
    if temporary is not None:
        return Delayed(text_of(temporary))
    if isinstance(error, ExitError):
        return Ended(text_of(error), exit_code=error.code)
    return Ended(text_of(error))


def text_of(error: BaseException) -> str:
    """What a user reads of an error: the executor's own words, or for a bug its kind and words."""
    text = " ".join(str(error).split())
    if not isinstance(error, SwarmError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = text or type(error).__name__
    return text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 1] + "…"


def _temporary_cause(error: BaseException) -> TemporaryError | None:
    """A TemporaryError anywhere in the chain of causes makes the whole a temporary one (SwarmKit: 9.1)."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, TemporaryError):
            return link
        seen.add(id(link))
        link = link.__cause__
    return None


def retry_delay(attempt: int) -> float:
    """Seconds before the next try, after `attempt` tries (from 1) that did not work for now."""
    return float(min(FIRST_RETRY_SECONDS * 2.0 ** min(attempt - 1, 10), MAX_RETRY_SECONDS))


def advanced(status: TaskStatus, state: TaskState.ValueType, message: str, now: float) -> TaskStatus:
    """The status after a transition: err is cleared, what is known of the container stays."""
    new = TaskStatus()
    new.CopyFrom(status)
    new.state = max(state, status.state)
    new.message = message
    new.err = ""
    return stamped(status, new, now)


def failed(status: TaskStatus, error: str, exit_code: int | None, now: float) -> TaskStatus:
    """The status of a task that is over: REJECTED before STARTING, FAILED from there on; a final one stays."""
    if is_final(status.state):
        return status
    new = TaskStatus()
    new.CopyFrom(status)
    new.state = TaskState.REJECTED if status.state < TaskState.STARTING else TaskState.FAILED
    new.err = error
    if exit_code is not None:
        new.container.exit_code = _int32(exit_code)
    return stamped(status, new, now)


def after(status: TaskStatus, verb: Verb, outcome: Outcome, now: float) -> TaskStatus:
    """The status that `outcome` of `verb` leaves; the same object where it changes nothing."""
    if isinstance(outcome, Succeeded):
        state, message = _DONE[verb]
        return advanced(status, state, message, now)
    if isinstance(outcome, Ended):
        return failed(status, outcome.error, outcome.exit_code, now)
    if isinstance(outcome, Delayed):
        new = TaskStatus()
        new.CopyFrom(status)
        new.err = outcome.error
        return stamped(status, new, now)
    return status


def unresolved(status: TaskStatus, error: str, now: float) -> TaskStatus:
    """The status of a task that got no controller (SwarmKit: 8.8)."""
    if is_final(status.state):
        return status
    new = failed(status, error, None, now)
    new.message = "resolving controller failed"
    return new


def stamped(old: TaskStatus, new: TaskStatus, now: float) -> TaskStatus:
    """`new` with its time, or `old` itself where only the time would differ."""
    if new == old:
        return old
    # A float of today has no more than microseconds.
    seconds, micros = divmod(round(now * 1_000_000), 1_000_000)
    new.timestamp.seconds = seconds
    new.timestamp.nanos = micros * 1000
    return new


def _int32(code: int) -> int:
    return max(-(2**31), min(code, 2**31 - 1))
