"""The state of one term, kept in the scheduler's thread: the view, the backlog, and what to try when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.scheduler.backlog import Backlog
from swarmcore.scheduler.decision import Assign, Decision, Report
from swarmcore.scheduler.plan import never, plan
from swarmcore.scheduler.view import View
from swarmcore.store.changes import Change

ROUND_LIMIT = 2_000
"""Decisions of one round, so that the first tasks are on their way while the last ones are decided about."""
ROUND_SECONDS = 0.1
"""A round begins no further group after this long, for the same reason."""
RETRY_SHARE = 4
"""After a retry of what could not be placed, it rests at least this many times as long as the retry took."""

_PENDING = TaskState.PENDING
_RUNNING = TaskState.RUNNING
_COMPLETE = TaskState.COMPLETE
_SHUTDOWN = TaskState.SHUTDOWN
_REMOVE = TaskState.REMOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """The store's tables as they were at one moment."""

    nodes: Sequence[Node]
    services: Sequence[Service]
    tasks: Sequence[Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What happened since the last round, in the order in which it is taken in."""

    plugins: PluginSet
    everything: Everything | None = None
    """Start over from this."""
    refused: Sequence[Assign] = ()
    """Decisions that were not carried out, because the task is gone or changed: a change says what it is now."""
    failed: Sequence[Decision] = ()
    """Decisions that were not carried out and have to be made again."""
    changes: Sequence[Change] = ()
    is_resync: bool = False
    """Try everything again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a round came to."""

    decisions: list[Decision]
    has_more: bool
    """Another round has something to do at once."""
    is_resting: bool
    """Tasks wait for freed resources or a change of a node."""
    retry_at: float | None
    """When to have another round for those that wait, though nothing else happens (monotonic)."""


@dataclass(slots=True)
class Planner:
    """Takes changes in, plans, says when it wants to be called again. Called by one thread."""

    strategy: str
    monotonic: Callable[[], float]
    limit: int = ROUND_LIMIT
    is_stopped: Callable[[], bool] = never
    view: View = field(default_factory=View)
    backlog: Backlog = field(default_factory=Backlog)
    _over: dict[str, Task] = field(default_factory=dict)
    """Tasks that were never assigned and are not wanted any more."""
    _is_woken: bool = False
    _next_retry: float = 0.0
    _plugin_set: int = -1
    """The number of the one used last."""

    def round(self, given: Input) -> Output:
        """Take in what happened and decide what can be decided."""
        now = self.monotonic()
        self.view.clock[0] = now
        self._take_in(given)
        is_retry = self._is_woken and self.backlog.is_resting and now >= self._next_retry
        if is_retry:
            self.backlog.wake_all()
        if is_retry or not self.backlog.is_resting:
            self._is_woken = False
        decisions: list[Decision] = [Report(task, "", _SHUTDOWN) for task in self._over.values()]
        self._over.clear()
        deadline = self.monotonic() + ROUND_SECONDS
        decisions += plan(
            self.view,
            self.backlog,
            given.plugins,
            strategy=self.strategy,
            now=now,
            limit=max(self.limit, len(self.view)),
            is_over=lambda: self.is_stopped() or self.monotonic() > deadline,
        )
        if is_retry:
            end = self.monotonic()
            self._next_retry = end + RETRY_SHARE * (end - now)
        return Output(
            decisions=decisions,
            has_more=self.backlog.is_ready,
            is_resting=self.backlog.is_resting,
            retry_at=self._next_retry if self._is_woken and self.backlog.is_resting else None,
        )

    def _take_in(self, given: Input) -> None:
        if given.everything is not None:
            self._start_over(given.everything)
        for decision in given.refused:
            self.view.unbook(decision.task.id)
        for failed in given.failed:
            if isinstance(failed, Assign):
                self.view.unbook(failed.task.id)
                self.backlog.add(failed.task)
            elif failed.state == _SHUTDOWN:
                self._over[failed.task.id] = failed.task
            else:
                # Its group rests, and has not said why.
                self._is_woken = True
        self._is_woken = self._is_woken or given.is_resync or self._plugin_set != given.plugins.number
        self._plugin_set = given.plugins.number
        for table, old, new in given.changes:
            if table == "task":
                if new is not None:
                    self._put_task(new)
                elif old is not None:
                    self._remove_task(old.id)
            elif table == "node":
                if new is not None:
                    self.view.put_node(new)
                elif old is not None:
                    self.view.remove_node(old.id)
                self._is_woken = True
            elif table == "service":
                self._put_service(old, new)

    def _start_over(self, everything: Everything) -> None:
        before, self.view, self.backlog = self.view, View(), Backlog()
        self._over.clear()
        self.view.clock[0] = before.clock[0]
        for service in everything.services:
            self.view.services[service.id] = service
        for node in everything.nodes:
            self.view.put_node(node)
        self.view.keep_failures(before)
        self._put_tasks(everything.tasks)

    def _put_tasks(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._put_task(task)

    def _put_task(self, task: Task) -> None:
        state, desired = task.status.state, task.desired_state
        if state < _PENDING and desired <= _COMPLETE:
            return
        if state > _PENDING:
            self._over.pop(task.id, None)
            self.backlog.discard(task.id)
            if (task.node_id or state > _RUNNING) and self.view.put_task(task):
                self._is_woken = True
            return
        if desired <= _COMPLETE:
            self.backlog.add(task)
            return
        self.backlog.discard(task.id)
        if _SHUTDOWN <= desired < _REMOVE:
            self._over[task.id] = task

    def _remove_task(self, id: str) -> None:
        self._over.pop(id, None)
        self.backlog.discard(id)
        if self.view.remove_task(id):
            self._is_woken = True

    def _put_service(self, old: Service | None, new: Service | None) -> None:
        if new is not None:
            self.view.services[new.id] = new
            self.backlog.wake_service(new.id)
        elif old is not None:
            self.view.services.pop(old.id, None)
            self.backlog.wake_service(old.id)
