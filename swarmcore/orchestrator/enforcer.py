"""Rejects tasks whose node no longer satisfies what they need, so that they are restarted elsewhere (SwarmKit: 4.7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import GenericResource, TaskState
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import NotLeaderError, SwarmError
from swarmcore.orchestrator.dirty import satisfies
from swarmcore.orchestrator.slots import seconds
from swarmcore.store.changes import Commit, Resync
from swarmcore.store.inbox import Inbox
from swarmcore.store.store import LeaderStore
from swarmcore.store.tables import TableReader
from swarmcore.store.transaction import Transaction

RESYNC_SECONDS = 300.0
TASKS_PER_SLICE = 250
MESSAGE = "task rejected by constraint enforcer"
REASON = "assigned node no longer meets constraints"

_log = logging.getLogger("swarmcore.orchestrator")


def unfit_tasks(node: Node, tasks: Iterable[Task], services: TableReader[Service]) -> list[Task]:
    """Return the tasks on an ACTIVE node that it can no longer take: constraints, memory, CPUs, generic resources.

    What a task needs is its service's current constraints, and its own reservations.
    Unlike SwarmKit it leaves out global tasks that wait for room on their node: they hold nothing of it yet, and to
    reject them would look like a failure of their update.
    """
    if node.spec.availability != NodeSpec.Availability.ACTIVE:
        return []
    resources = node.description.resources
    has_resources = node.description.HasField("resources")
    memory, cpus = resources.memory_bytes, resources.nano_cpus
    generic = _available(resources.generic)
    unfit = []
    for task in tasks:
        is_wanted = TaskState.ASSIGNED <= task.desired_state <= TaskState.COMPLETE
        if not is_wanted or not TaskState.ASSIGNED <= task.status.state < TaskState.COMPLETE:
            continue
        service = services.get(task.service_id)
        if not satisfies(node, service.spec.task if service is not None else task.spec):
            unfit.append(task)
            continue
        if not has_resources:
            continue
        reserved = task.spec.resources.reservations
        if reserved.memory_bytes > memory or reserved.nano_cpus > cpus:
            unfit.append(task)
            continue
        if not _claim(generic, task.assigned_generic_resources):
            unfit.append(task)
            break
        memory -= reserved.memory_bytes
        cpus -= reserved.nano_cpus
    return unfit


def _age(task: Task) -> tuple[float, str]:
    return seconds(task.meta.created_at), task.id


def _available(resources: Iterable[GenericResource]) -> dict[tuple[str, str], int]:
    """How many there are, by kind, and value where they have names."""
    available: dict[tuple[str, str], int] = {}
    for resource in resources:
        if resource.WhichOneof("resource") == "named_resource_spec":
            named = resource.named_resource_spec
            available[named.kind, named.value] = 1
        else:
            discrete = resource.discrete_resource_spec
            available[discrete.kind, ""] = available.get((discrete.kind, ""), 0) + discrete.value
    return available


def _claim(available: dict[tuple[str, str], int], assigned: Iterable[GenericResource]) -> bool:
    for key, count in _available(assigned).items():
        if available.get(key, 0) < count:
            return False
        available[key] -= count
    return True


def is_other(old: Node | None, new: Node) -> bool:
    """Whether a node changed in something that tasks may ask for."""
    return (
        old is None
        or old.spec != new.spec
        or old.description != new.description
        or old.role != new.role
        or old.status.addr != new.status.addr
    )


class ConstraintEnforcer:
    """Satisfies `LeaderComponent`."""

    name = "constraint-enforcer"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()

    async def run(self, store: LeaderStore) -> None:
        """Work until cancelled."""
        with Inbox(store.subscribe(("node",)), self._clock) as inbox:
            resync_at = self._clock.monotonic()
            while True:
                commits = inbox.take()
                now = self._clock.monotonic()
                if now >= resync_at or any(isinstance(commit, Resync) for commit in commits):
                    changed = [node.id for node in store.view.node.all()]
                    resync_at = now + RESYNC_SECONDS
                else:
                    changed = _changed(commits)
                if changed:
                    if not await self._enforce(store, changed):
                        resync_at = now + 1.0
                    continue
                await inbox.wait(resync_at)

    async def _enforce(self, store: LeaderStore, node_ids: Iterable[str]) -> bool:
        """Check the tasks of some nodes; False where that could not be written."""
        unfit: list[str] = []
        looked = 0
        for id in node_ids:
            node = store.view.node.get(id)
            if node is not None:
                # The oldest stay where not all fit. The index has no order that another leader would know.
                tasks = sorted(store.view.task.by("node", id), key=_age)
                unfit.extend(task.id for task in unfit_tasks(node, tasks, store.view.service))
                looked += len(tasks)
            looked += 1
            if looked >= TASKS_PER_SLICE:
                looked = 0
                await asyncio.sleep(0)
        if not unfit:
            return True
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self._clock.now() * 1e9))

        def write(tx: Transaction, id: str) -> None:
            old = tx.task.get(id)
            if old is None or old.status.state >= TaskState.COMPLETE:
                return
            task = Task()
            task.CopyFrom(old)
            task.status.state = TaskState.REJECTED
            task.status.message = MESSAGE
            task.status.err = REASON
            task.status.timestamp.CopyFrom(stamp)
            tx.task.update(task)

        try:
            return not any(await store.batch(unfit, write))
        except NotLeaderError:
            raise
        except SwarmError as error:
            _log.warning("tasks on nodes that changed could not be rejected, trying again: %s", error)
            return False


def _changed(commits: Sequence[Commit | Resync]) -> list[str]:
    changed: dict[str, None] = {}
    for commit in commits:
        for change in commit.changes if isinstance(commit, Commit) else ():
            if change.new is not None and is_other(change.old, change.new):
                changed[change.id] = None
    return list(changed)
