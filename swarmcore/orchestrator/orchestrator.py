"""The driver of the service planners: feeds them what changed in the store, and writes what they ask for."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.brake import is_held
from swarmcore.api.ids import IdSource, new_id
from swarmcore.api.objects_pb2 import Cluster, Node, Service, Task
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import NotLeaderError, SwarmError
from swarmcore.orchestrator.actions import Action, carry_out
from swarmcore.orchestrator.everywhere import PerNodePlanner
from swarmcore.orchestrator.planner import Moment, RemovedServicePlanner, ServicePlanner, World
from swarmcore.orchestrator.services import planner_for
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.store.changes import Change, Commit, Resync
from swarmcore.store.inbox import Inbox, feed
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

TABLES = ("service", "task", "node", "cluster")
RESYNC_SECONDS = 300.0
RETRY_SECONDS = 1.0
SLICE_SECONDS = 0.005
CHANGES_PER_SLICE = 1000

_log = logging.getLogger("swarmcore.orchestrator")


class Orchestrator:
    """Keeps the tasks of all services what the services ask for: satisfies `LeaderComponent`."""

    name = "orchestrator"

    def __init__(
        self,
        *,
        plugins: Callable[[], PluginSet],
        clock: Clock | None = None,
        new_id: IdSource = new_id,
    ) -> None:
        self._plugins = plugins
        self._clock = clock if clock is not None else SystemClock()
        self._new_id = new_id

    async def run(self, store: LeaderStore) -> None:
        """Work until cancelled."""
        await _Term(store, self._plugins, self._clock, self._new_id).run()


class _StoreNodes:
    """Nodes as the store has them now."""

    def __init__(self, store: LeaderStore) -> None:
        self._store = store

    def get(self, id: str, /) -> Node | None:
        return self._store.view.node.get(id)

    def all(self) -> Iterable[Node]:
        return self._store.view.node.all()


class _Term:
    """All planners during one term of leadership."""

    def __init__(self, store: LeaderStore, plugins: Callable[[], PluginSet], clock: Clock, new_id: IdSource) -> None:
        self._store = store
        self._plugins = plugins
        self._clock = clock
        self._world = World(nodes=_StoreNodes(store), cluster=self._cluster, new_id=new_id)
        self._planners: dict[str, ServicePlanner] = {}
        self._per_node: dict[str, ServicePlanner] = {}
        self._due: dict[str, None] = {}
        self._timers: list[tuple[float, str]] = []
        self._parked: dict[str, float] = {}
        """Services for which something could not be written, until when they are left alone."""
        self._resync_at = 0.0

    def _cluster(self) -> Cluster | None:
        return next(iter(self._store.view.cluster.all()), None)

    async def run(self) -> None:
        with Inbox(self._store.subscribe(TABLES), self._clock) as inbox:
            await self._load()
            while True:
                await self._take(inbox.take())
                if self._clock.monotonic() >= self._resync_at:
                    self._recheck()
                self._fire_timers()
                if not self._due:
                    await inbox.wait(min(self._resync_at, self._timers[0][0] if self._timers else self._resync_at))
                    continue
                actions = self._plan()
                if actions:
                    await self._write(actions)
                else:
                    await asyncio.sleep(0)

    # What happened

    async def _load(self) -> None:
        """Make all planners anew. Nothing is awaited between subscribing, or draining, and reading the view."""
        view = self._store.view
        services, tasks = list(view.service.all()), list(view.task.all())
        self._planners.clear()
        self._per_node.clear()
        self._due.clear()
        self._timers.clear()
        self._parked.clear()
        for service in services:
            self._adopt(planner_for(service, self._world))
        for number, task in enumerate(tasks, 1):
            self._put(task)
            if number % CHANGES_PER_SLICE == 0:
                await asyncio.sleep(0)
        self._resync_at = self._clock.monotonic() + RESYNC_SECONDS

    async def _take(self, commits: Sequence[Commit | Resync]) -> None:
        if not await feed(commits, self._feed, changes_per_slice=CHANGES_PER_SLICE):
            await self._load()

    def _feed(self, change: Change) -> None:
        if change.table == "task":
            if change.new is not None:
                self._put(change.new)
            elif change.old is not None:
                self._remove(change.old)
        elif change.table == "service":
            self._put_service(change.id, change.new)
        elif change.table == "node":
            self._put_node(change.id, change.old, change.new)
        else:
            for planner in self._planners.values():
                planner.forget_template()

    def _adopt(self, planner: ServicePlanner) -> None:
        id = planner.service.id
        self._planners[id] = planner
        if isinstance(planner, PerNodePlanner):
            self._per_node[id] = planner
        else:
            self._per_node.pop(id, None)
        self._due[id] = None

    def _put(self, task: Task) -> None:
        id = task.service_id
        if not id:
            return
        planner = self._planners.get(id)
        if planner is None:
            planner = planner_for(None, self._world, id)
            self._adopt(planner)
        planner.put(task)
        if planner.has_work:
            self._due[id] = None

    def _remove(self, task: Task) -> None:
        planner = self._planners.get(task.service_id)
        if planner is not None:
            planner.remove(task)
            self._due[task.service_id] = None

    def _put_service(self, id: str, service: Service | None) -> None:
        planner = self._planners.get(id)
        if planner is not None and service is not None and not isinstance(planner, RemovedServicePlanner):
            planner.set_service(service)
            self._due[id] = None
            return
        if planner is not None and service is None:
            self._adopt(RemovedServicePlanner(planner.service, self._world, planner))
            return
        tasks = [] if planner is None else [task for slot in planner.slots.values() for task in slot.tasks.values()]
        planner = planner_for(service, self._world, id)
        for task in tasks:
            planner.put(task)
        self._adopt(planner)

    def _put_node(self, id: str, old: Node | None, new: Node | None) -> None:
        """Have looked at again whatever depends on what the node is."""
        for planner in self._per_node.values():
            planner.touch(id)
            self._due[planner.service.id] = None
        if (
            old is not None
            and new is not None
            and old.status.state == new.status.state
            and is_held(old) == is_held(new)
            and old.spec.availability == new.spec.availability
        ):
            return
        for task in self._store.view.task.by("node", id):
            service_planner = self._planners.get(task.service_id)
            if service_planner is not None:
                service_planner.touch(service_planner.key_of(task))
                self._due[task.service_id] = None

    def _recheck(self) -> None:
        """Look at everything again, in case something was missed."""
        for id, planner in self._planners.items():
            planner.forget_starts()
            planner.touch_all()
            self._due[id] = None
        self._resync_at = self._clock.monotonic() + RESYNC_SECONDS

    # What to do

    def _fire_timers(self) -> None:
        now = self._clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            id = heapq.heappop(self._timers)[1]
            self._due[id] = None
            if self._parked.get(id, now + 1.0) <= now:
                del self._parked[id]
                if (planner := self._planners.get(id)) is not None:
                    planner.touch_all()

    def _plan(self) -> list[tuple[str, Action]]:
        """Ask the planners that have something to do, in turn, for as long as a slice may take.

        Each action comes with the service that it is for.
        """
        moment = Moment(now=self._clock.now(), monotonic=self._clock.monotonic(), plugins=self._plugins())
        actions: list[tuple[str, Action]] = []
        end = time.perf_counter() + SLICE_SECONDS
        for id in list(self._due):
            del self._due[id]
            planner = self._planners.get(id)
            if planner is None or id in self._parked:
                continue
            before = planner.next_wake
            actions.extend([(id, action) for action in planner.plan(moment)])
            wake = planner.next_wake
            if wake is not None and wake != before:
                heapq.heappush(self._timers, (wake, id))
            if planner.has_work:
                self._due[id] = None
            elif not planner.slots and id not in self._store.view.service:
                del self._planners[id]
            if time.perf_counter() >= end:
                break
        return actions

    async def _write(self, actions: Sequence[tuple[str, Action]]) -> None:
        """Carry everything out. A service for which that failed is looked at as a whole a second later."""
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self._clock.now() * 1e9))

        def write(tx: Transaction, action: tuple[str, Action]) -> None:
            carry_out(tx, action[1], stamp)

        errors: Sequence[Exception | None]
        try:
            errors = await self._store.batch(actions, write)
        except NotLeaderError:
            raise
        except SwarmError as error:
            errors = [error] * len(actions)
        failed = {id: error for (id, _), error in zip(actions, errors, strict=True) if error is not None}
        until = self._clock.monotonic() + RETRY_SECONDS
        for id, reason in failed.items():
            _log.warning("tasks of service %s could not be written, trying again: %s", id, reason)
            self._parked[id] = until
            heapq.heappush(self._timers, (until, id))
