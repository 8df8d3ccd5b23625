"""The driver of allocation: gives services their ports, and moves tasks from NEW to PENDING (SwarmKit: 12.1, 12.4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.allocator.ports import PortConflict, PortSpace
from swarmcore.api.objects_pb2 import Endpoint, Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import NotLeaderError, SwarmError
from swarmcore.store.allocation import has_networks, is_allocated, release
from swarmcore.store.changes import Change, Commit, Resync
from swarmcore.store.inbox import Inbox, feed
from swarmcore.store.store import LeaderStore
from swarmcore.store.transaction import Transaction

TABLES = ("service", "task")
RETRY_SECONDS = 300.0
REFUSED_SECONDS = 1.0
TASKS_PER_BATCH = 2000
CHANGES_PER_SLICE = 2000
SERVICES_PER_SLICE = 200

NO_NETWORKS = "network support is unavailable"

_NEW = TaskState.NEW

_log = logging.getLogger("swarmcore.allocator")


class Allocator:
    """Satisfies `LeaderComponent`."""

    name = "allocator"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()

    async def run(self, store: LeaderStore) -> None:
        """Work until cancelled."""
        await _Term(store, self._clock).run()


class _Term:
    """What is allocated and what waits, during one term of leadership. Derived from the store when it begins."""

    def __init__(self, store: LeaderStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ports = PortSpace()
        self._services: dict[str, None] = {}
        """To be looked at."""
        self._tasks: dict[str, None] = {}
        """NEW, to be looked at."""
        self._refused: dict[str, str] = {}
        """Services that can't be allocated, with the reason."""
        self._waiting: dict[str, dict[str, None]] = {}
        """NEW tasks that wait for their service, by service."""
        self._retry_at = 0.0

    async def run(self) -> None:
        with Inbox(self._store.subscribe(TABLES), self._clock) as inbox:
            await self._load()
            while True:
                await self._take(inbox.take())
                if self._clock.monotonic() >= self._retry_at:
                    await self._load()
                if self._services:
                    await self._allocate_services()
                elif self._tasks:
                    await self._allocate_tasks()
                else:
                    await inbox.wait(self._retry_at)

    async def _load(self) -> None:
        """Reserve what services hold, before anything new is given out; then look at all that is not allocated."""
        view = self._store.view
        services, tasks = list(view.service.all()), list(view.task.all())
        self._ports = PortSpace()
        self._refused.clear()
        self._waiting.clear()
        self._retry_at = self._clock.monotonic() + RETRY_SECONDS
        for service in services:
            if not self._ports.restore(service):
                _log.error("service %s holds a port that another holds too: it gets a new endpoint", service.id)
                self._services[service.id] = None
            elif not is_allocated(service):
                self._services[service.id] = None
        for number, task in enumerate(tasks, 1):
            if task.status.state == _NEW:
                self._tasks[task.id] = None
            if number % CHANGES_PER_SLICE == 0:
                await asyncio.sleep(0)

    async def _take(self, commits: Sequence[Commit | Resync]) -> None:
        if not await feed(commits, self._see, changes_per_slice=CHANGES_PER_SLICE):
            await self._load()

    def _see(self, change: Change) -> None:
        if change.table == "service":
            self._see_service(change.id, change.new)
        elif change.new is None:
            self._tasks.pop(change.id, None)
        elif change.old is None and change.new.status.state == _NEW:
            self._tasks[change.new.id] = None

    def _see_service(self, id: str, service: Service | None) -> None:
        if service is None:
            self._refused.pop(id, None)
            self._waiting.pop(id, None)
            self._services.pop(id, None)
            if self._ports.release(id):
                self._retry_refused()
            return
        if is_allocated(service):
            self._refused.pop(id, None)
        else:
            self._services[id] = None
        self._tasks.update(self._waiting.pop(id, {}))

    def _retry_refused(self) -> None:
        """Something is free again."""
        self._services.update(dict.fromkeys(self._refused))

    # Services

    async def _allocate_services(self) -> None:
        endpoints: dict[str, Endpoint | None] = {}
        is_something_free = False
        for number, id in enumerate(self._services, 1):
            if number % SERVICES_PER_SLICE == 0:
                await asyncio.sleep(0)
            service = self._store.view.service.get(id)
            if service is None:
                continue
            if has_networks(service):
                self._refuse(id, NO_NETWORKS)
                continue
            if not service.spec.HasField("endpoint"):
                endpoints[id] = None
                continue
            before = self._ports.held(id)
            try:
                endpoints[id] = self._ports.allocate(service)
                is_something_free |= not before <= self._ports.held(id)
            except PortConflict as conflict:
                self._refuse(id, str(conflict))
        self._services.clear()

        def write(tx: Transaction, id: str) -> None:
            old = tx.service.get(id)
            endpoint = endpoints[id]
            if old is None or old.spec.HasField("endpoint") != (endpoint is not None):
                return
            if endpoint is not None and (endpoint.spec != old.spec.endpoint or endpoint == old.endpoint):
                return
            service = Service()
            service.CopyFrom(old)
            if endpoint is None:
                service.ClearField("endpoint")
            else:
                service.endpoint.CopyFrom(endpoint)
            tx.service.update(service)

        await self._batch(list(endpoints), write)
        for id, endpoint in endpoints.items():
            self._refused.pop(id, None)
            is_something_free |= endpoint is None and self._ports.release(id)
            self._tasks.update(self._waiting.pop(id, {}))
        if is_something_free:
            self._retry_refused()

    def _refuse(self, id: str, reason: str) -> None:
        if self._refused.get(id) != reason:
            _log.info("service %s is not allocated: %s", id, reason)
        self._refused[id] = reason
        self._tasks.update(self._waiting.pop(id, {}))

    # Tasks

    async def _allocate_tasks(self) -> None:
        """Look at the tasks that are new, as many at once as there are, up to a bound."""
        ids = []
        for id in self._tasks:
            ids.append(id)
            if len(ids) == TASKS_PER_BATCH:
                break
        for id in ids:
            del self._tasks[id]
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self._clock.now() * 1e9))

        def write(tx: Transaction, id: str) -> None:
            old = tx.task.get(id)
            if old is None or old.status.state != _NEW or old.desired_state > TaskState.COMPLETE:
                return
            reason = self._why_not(tx, old)
            if reason is None:
                self._waiting.setdefault(old.service_id, {})[id] = None
                return
            if reason and old.status.err == reason:
                self._waiting.setdefault(old.service_id, {})[id] = None
                return
            task = Task()
            task.CopyFrom(old)
            if reason:
                task.status.err = reason
                self._waiting.setdefault(old.service_id, {})[id] = None
            else:
                service = tx.service.get(old.service_id) if old.service_id else None
                release(task, service, stamp)
            tx.task.update(task)

        await self._batch(ids, write)

    def _why_not(self, tx: Transaction, task: Task) -> str | None:
        """Why a task can't be scheduled yet: empty where it can, None where its service has just to be waited for."""
        if task.spec.networks:
            return NO_NETWORKS
        if not task.service_id:
            return ""
        service = tx.service.get(task.service_id)
        if service is None:
            return None
        reason = NO_NETWORKS if has_networks(service) else self._refused.get(service.id)
        if reason:
            return reason
        return "" if is_allocated(service) else None

    async def _batch(self, ids: list[str], write: Callable[[Transaction, str], None]) -> None:
        """Write, and have everything looked at again a moment later where that failed."""
        try:
            errors = await self._store.batch(ids, write)
        except NotLeaderError:
            raise
        except SwarmError as error:
            _log.warning("nothing could be written, trying again: %s", error)
            errors = [error]
        if any(error is not None for error in errors):
            self._retry_at = min(self._retry_at, self._clock.monotonic() + REFUSED_SECONDS)
