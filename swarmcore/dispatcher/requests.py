"""Bounds on what a worker may send. Pure. A worker is a machine that can be broken into: it must not fill the store."""

from __future__ import annotations

from typing import Final

from swarmcore.api.dispatcher_pb2 import SessionRequest, UpdateTaskStatusRequest, UpdateVolumeStatusRequest
from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.errors import InvalidArgumentError

MAX_ID = 64
MAX_HOSTNAME = 255
MAX_DESCRIPTION_BYTES = 256 * 1024
MAX_UPDATES = 20_000
MAX_STATUS_BYTES = 64 * 1024
MAX_TEXT = 4096
"""Characters kept of a status's message and error; engines put whole build logs there."""

_STATES: Final = frozenset(TaskState.values())


def check_session_id(session_id: str) -> None:
    """Raise InvalidArgumentError when no dispatcher can have given this id out."""
    if len(session_id) > MAX_ID:
        raise InvalidArgumentError(f"session_id: has {len(session_id)} characters; at most {MAX_ID}")


def check_session(request: SessionRequest) -> None:
    """Raise InvalidArgumentError when the description is larger than that of a real machine."""
    check_session_id(request.session_id)
    if not request.HasField("description"):
        return
    hostname = request.description.hostname
    if len(hostname) > MAX_HOSTNAME:
        raise InvalidArgumentError(
            f"description.hostname: has {len(hostname)} characters; at most {MAX_HOSTNAME}: rename the machine"
        )
    size = request.description.ByteSize()
    if size > MAX_DESCRIPTION_BYTES:
        raise InvalidArgumentError(
            f"description: is {size} bytes; at most {MAX_DESCRIPTION_BYTES}: shorten the engine's labels or resources"
        )


def task_updates(request: UpdateTaskStatusRequest) -> list[tuple[str, TaskStatus]]:
    """The reports of the request, with texts cut to what is kept; raises InvalidArgumentError with the field's name.

    Text is cut rather than refused: an agent that is refused repeats the same report for ever.
    """
    check_session_id(request.session_id)
    if len(request.updates) > MAX_UPDATES:
        raise InvalidArgumentError(f"updates: has {len(request.updates)} elements; at most {MAX_UPDATES} in one call")
    updates: list[tuple[str, TaskStatus]] = []
    for number, update in enumerate(request.updates):
        if not update.HasField("status"):
            continue
        task_id, status = update.task_id, update.status
        if len(task_id) > MAX_ID:
            raise InvalidArgumentError(f"updates[{number}].task_id: has {len(task_id)} characters; at most {MAX_ID}")
        if status.state not in _STATES:
            raise InvalidArgumentError(f"updates[{number}].status.state: {status.state} is not a task state")
        if status.ByteSize() > MAX_TEXT:
            status.message = status.message[:MAX_TEXT]
            status.err = status.err[:MAX_TEXT]
            if status.ByteSize() > MAX_STATUS_BYTES:
                raise InvalidArgumentError(
                    f"updates[{number}].status: is {status.ByteSize()} bytes; at most {MAX_STATUS_BYTES}"
                )
        updates.append((task_id, status))
    return updates


def unpublished_volumes(request: UpdateVolumeStatusRequest) -> list[str]:
    """Ids of the volumes that the caller no longer mounts; raises InvalidArgumentError with the field's name."""
    check_session_id(request.session_id)
    if len(request.updates) > MAX_UPDATES:
        raise InvalidArgumentError(f"updates: has {len(request.updates)} elements; at most {MAX_UPDATES} in one call")
    for number, update in enumerate(request.updates):
        if len(update.id) > MAX_ID:
            raise InvalidArgumentError(f"updates[{number}].id: has {len(update.id)} characters; at most {MAX_ID}")
    return [update.id for update in request.updates if update.unpublished]
