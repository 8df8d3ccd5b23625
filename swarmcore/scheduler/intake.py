"""What a change of the store means to the scheduler, told on the loop in well under a microsecond.

Nearly all changes of a big cluster are tasks that report RUNNING; they end here.
"""

from __future__ import annotations

from enum import IntEnum

from swarmcore.api.types_pb2 import TaskState
from swarmcore.store.changes import Change

TABLES = ("task", "node", "service")

_PENDING = TaskState.PENDING
_ASSIGNED = TaskState.ASSIGNED
_RUNNING = TaskState.RUNNING
_COMPLETE = TaskState.COMPLETE


class Meaning(IntEnum):
    """How soon the thread has to hear of a change."""

    NOTHING = 0
    LATER = 1
    """With the next round, whenever that is."""
    FREED = 2
    """At once if a task waits."""
    WORK = 3
    """At once."""


# As names of the module: an attribute of an enum class costs more than all the rest.
NOTHING, LATER, FREED, WORK = Meaning.NOTHING, Meaning.LATER, Meaning.FREED, Meaning.WORK


def meaning_of(change: Change) -> Meaning:
    """Whether and when the scheduler's thread has to be told."""
    table, old, new = change
    if table != "task":
        return FREED if table == "node" else LATER if old is None else WORK
    if new is None:
        return NOTHING if old is None or old.status.state < _PENDING else FREED
    state = new.status.state
    if old is None:
        before = 0
    else:
        before = old.status.state
        if before >= _ASSIGNED and (
            before > _RUNNING
            or (state <= _RUNNING and (old.desired_state <= _COMPLETE) is (new.desired_state <= _COMPLETE))
        ):
            return NOTHING
    if state > _PENDING:
        if state > _RUNNING:
            return FREED if before >= _PENDING else NOTHING
        return FREED if new.desired_state > _COMPLETE else LATER
    if state < _PENDING:
        # Nobody allocates what is not wanted any more: its end is the scheduler's word.
        return WORK if new.desired_state > _COMPLETE else NOTHING
    if old is None or before != _PENDING or old.desired_state != new.desired_state or old.node_id != new.node_id:
        return WORK
    return LATER
