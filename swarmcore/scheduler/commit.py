"""Carrying decisions out: each is checked once more against the store as it is at the moment of writing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.errors import NotLeaderError, SwarmError
from swarmcore.scheduler.decision import Assign, Decision, Report
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

log = logging.getLogger("swarmcore.scheduler")

ASSIGNED = "scheduler assigned task to node"
CONFIRMED = "scheduler confirmed task can run on preassigned node"


@dataclass(slots=True)
class Leftover:
    """Decisions that were not carried out."""

    refused: list[Assign] = field(default_factory=list)
    """The task is gone or changed since."""
    failed: list[Decision] = field(default_factory=list)
    """To be made again."""
    is_unwritable: bool = False
    """The store took nothing: wait a while."""


async def commit(store: LeaderStore, decisions: Sequence[Decision], now: float) -> Leftover:
    """Write what still holds, and return the rest. `now`: seconds since the epoch. Raises NotLeaderError."""
    leftover = Leftover()
    stamp = Timestamp()
    stamp.FromNanoseconds(int(now * 1e9))

    def write(tx: Transaction, decision: Decision) -> None:
        task = tx.task.get(decision.task.id)
        if task is None or task.meta.version.index != decision.task.meta.version.index:
            if isinstance(decision, Assign):
                leftover.refused.append(decision)
            return
        new = Task()
        new.CopyFrom(task)
        status = new.status
        if isinstance(decision, Report):
            status.state = decision.state
            status.err = decision.err
            status.timestamp.CopyFrom(stamp)
        else:
            planned = decision.node
            node = tx.node.get(planned.id)
            if node is not planned and (node is None or not is_alike(node, planned)):
                leftover.failed.append(decision)
                return
            status.Clear()
            status.state = TaskState.ASSIGNED
            status.message = CONFIRMED if new.node_id else ASSIGNED
            status.timestamp.CopyFrom(stamp)
            new.node_id = planned.id
            if decision.generic:
                new.assigned_generic_resources.extend(decision.generic)
        tx.task.update(new)

    try:
        errors = await store.batch(decisions, write)
    except NotLeaderError:
        raise
    except SwarmError as error:
        log.warning("%d decisions were not written and are made again: %s", len(decisions), error)
        return Leftover(failed=list(decisions), is_unwritable=True)
    for decision, refusal in zip(decisions, errors, strict=True):
        if refusal is not None:
            log.warning("task %s was not written and is decided about again: %s", decision.task.id, refusal)
            leftover.is_unwritable = True
            leftover.failed.append(decision)
    return leftover


def is_alike(now: Node, planned: Node) -> bool:
    """Whether a node is still what the decision was made for, in all that filters look at."""
    return bool(
        now.spec == planned.spec
        and now.status.state == planned.status.state
        and now.status.addr == planned.status.addr
        and now.role == planned.role
        and now.description == planned.description
    )
