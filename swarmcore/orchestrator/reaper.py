"""Deletes tasks that are over: what was to be removed and has stopped, and what is beyond a slot's history
(SwarmKit: 4.8). Gives up what is left on nodes that are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import NotLeaderError, SwarmError
from swarmcore.orchestrator.slots import retention_of, status_time
from swarmcore.store.changes import Change, Commit, Resync
from swarmcore.store.inbox import Inbox, feed
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

INTERVAL_SECONDS = 0.25
MAX_DIRTY = 1000
RESYNC_SECONDS = 300.0
SLOTS_PER_SLICE = 250

LOST_MESSAGE = "task belonged to a node that has been deleted"

SlotKey = tuple[str, int | str]
"""Service id, and slot number or node id: the key of the store's index of slots."""

_ASSIGNED = TaskState.ASSIGNED
_RUNNING = TaskState.RUNNING
_COMPLETE = TaskState.COMPLETE
_ORPHANED = TaskState.ORPHANED
_REMOVE = TaskState.REMOVE

_log = logging.getLogger("swarmcore.orchestrator")


def is_finished(task: Task) -> bool:
    """Whether the task can be deleted at once: removed and stopped (or never begun), or given up and nobody's."""
    state = task.status.state
    if task.desired_state == _REMOVE and (state < _ASSIGNED or state >= _COMPLETE):
        return True
    return state >= _ORPHANED and not task.service_id


def history_limit(service: Service | None, retention: int) -> int:
    """How many tasks a slot keeps; negative is all. `retention` is the cluster's own limit."""
    attempts = service.spec.task.restart.max_attempts if service is not None else 0
    return attempts + 1 if attempts > 0 else retention


def surplus(tasks: Collection[Task], limit: int) -> tuple[list[Task], bool]:
    """Return the tasks of one slot to delete, oldest first, and whether to look at it again when one of them ends.

    Only what is over goes: ended, or never begun and not to begin. One task stays whatever the limit: by the last one
    the orchestrator tells whether the slot is to have another.
    """
    if limit < 0:
        return [], False
    excess = len(tasks) - max(1, limit)
    doomed: list[Task] = []
    going = 0
    for task in sorted(tasks, key=status_time):
        if not is_over(task):
            going += 1
        elif len(doomed) < excess:
            doomed.append(task)
    return doomed, going > 1 and len(doomed) < excess


def is_over(task: Task) -> bool:
    """Whether nothing more becomes of it: it ended, or never began and is not to."""
    state = task.status.state
    return state > _RUNNING or (state < TaskState.ASSIGNED and task.desired_state > _RUNNING)


class TaskReaper:
    """Satisfies `LeaderComponent`."""

    name = "task-reaper"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()

    async def run(self, store: LeaderStore) -> None:
        """Work until cancelled."""
        await _Term(store, self._clock).run()


class _Term:
    def __init__(self, store: LeaderStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._slots: dict[SlotKey, None] = {}
        """To be looked at."""
        self._open: dict[SlotKey, None] = {}
        """Beyond their history with tasks that go on: to be looked at when one of these ends."""
        self._finished: dict[str, None] = {}
        self._lost: dict[str, None] = {}
        """On nodes that are gone, whose removal did not reach all their tasks: nobody will hear of them again."""
        self._reap_at: float | None = None
        self._resync_at = 0.0

    async def run(self) -> None:
        with Inbox(self._store.subscribe(("task", "cluster")), self._clock) as inbox:
            await self._load()
            while True:
                await self._take(inbox.take())
                now = self._clock.monotonic()
                if now >= self._resync_at:
                    await self._load()
                if self._reap_at is not None and (now >= self._reap_at or self._waiting > MAX_DIRTY):
                    self._reap_at = None
                    await self._reap()
                    continue
                await inbox.wait(self._resync_at if self._reap_at is None else min(self._reap_at, self._resync_at))

    @property
    def _waiting(self) -> int:
        return len(self._slots) + len(self._finished) + len(self._lost)

    async def _load(self) -> None:
        self._resync_at = self._clock.monotonic() + RESYNC_SECONDS
        self._open.clear()
        view = self._store.view
        for number, task in enumerate(list(view.task.all()), 1):
            self._see(task, is_new=True)
            if TaskState.ASSIGNED <= task.status.state <= _RUNNING and task.node_id not in view.node:
                self._lost[task.id] = None
            if number % SLOTS_PER_SLICE == 0:
                await asyncio.sleep(0)

    async def _take(self, commits: Sequence[Commit | Resync]) -> None:
        if not await feed(commits, self._see_change, changes_per_slice=SLOTS_PER_SLICE):
            await self._load()

    def _see_change(self, change: Change) -> None:
        if change.table == "cluster":
            # Another limit may concern every slot.
            self._resync_at = self._clock.monotonic()
        elif change.new is not None:
            self._see(change.new, is_new=change.old is None)

    def _see(self, task: Task, *, is_new: bool) -> None:
        if not is_new and task.status.state <= _RUNNING and task.desired_state != _REMOVE:
            return
        if is_finished(task):
            self._finished[task.id] = None
        elif task.service_id and not task.HasField("job_iteration"):
            key = (task.service_id, task.slot or task.node_id)
            if not is_new and (task.status.state <= _RUNNING or key not in self._open):
                return
            self._open.pop(key, None)
            self._slots[key] = None
        else:
            return
        if self._reap_at is None:
            self._reap_at = self._clock.monotonic() + INTERVAL_SECONDS

    async def _reap(self) -> None:
        view = self._store.view
        retention = retention_of(next(iter(view.cluster.all()), None))
        lost, self._lost = self._lost, {}
        await self._give_up(list(lost))
        doomed, self._finished = self._finished, {}
        slots, self._slots = self._slots, {}
        for number, key in enumerate(slots, 1):
            if number % SLOTS_PER_SLICE == 0:
                await asyncio.sleep(0)
            tasks = view.task.by("slot", key)
            if len(tasks) < 2:
                continue
            limit = history_limit(view.service.get(key[0]), retention)
            dead, is_open = surplus(tasks, limit)
            doomed.update((task.id, None) for task in dead)
            if is_open:
                self._open[key] = None
        await self._delete(list(doomed))

    async def _give_up(self, ids: list[str]) -> None:
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self._clock.now() * 1e9))

        def write(tx: Transaction, id: str) -> None:
            old = tx.task.get(id)
            if old is None or old.status.state > _RUNNING or old.node_id in tx.node:
                return
            task = Task()
            task.CopyFrom(old)
            task.status.state = TaskState.ORPHANED
            task.status.message = LOST_MESSAGE
            task.status.timestamp.CopyFrom(stamp)
            tx.task.update(task)

        await self._write(ids, write)

    async def _delete(self, ids: list[str]) -> None:
        def write(tx: Transaction, id: str) -> None:
            task = tx.task.get(id)
            if task is not None and (is_over(task) or is_finished(task)):
                tx.task.delete(id)

        await self._write(ids, write)

    async def _write(self, ids: list[str], write: Callable[[Transaction, str], None]) -> None:
        """Write, and look at everything again a moment later where that failed."""
        if not ids:
            return
        try:
            errors = await self._store.batch(ids, write)
        except NotLeaderError:
            raise
        except SwarmError as error:
            errors = [error]
        failure = next((error for error in errors if error is not None), None)
        if failure is not None:
            _log.warning("tasks that are over could not be cleared away, trying again: %s", failure)
            self._resync_at = min(self._resync_at, self._clock.monotonic() + 1.0)
