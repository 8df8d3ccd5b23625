"""What one service needs done, kept up to date task by task: a machine without clock, store or socket.

Fed with `put`, `remove` and `set_service`, asked with `plan`. Only slots that changed in a way that matters are looked
at again, so the cost follows the changes and not the size of the service. Everything it decides by is in the store,
so another leader goes on where this one stopped.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from swarmcore.api.ids import IdSource
from swarmcore.api.objects_pb2 import Cluster, Node, Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.orchestrator.actions import (
    Action,
    CreateTask,
    DeleteTask,
    ExplainTask,
    SetDesiredState,
    TaskTemplate,
)
from swarmcore.orchestrator.restarts import Held, decide, restart_delay
from swarmcore.orchestrator.slots import (
    Key,
    Slot,
    has_ended,
    is_drained,
    is_out_of_reach,
    is_usable,
    seconds,
    status_time,
)
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.plugin.restart import NoRestart, Restart

OLD_TASK_SECONDS = 60.0
"""How long a successor waits for the task it replaces to stop."""

HELD_SECONDS = 5.0
"""How often a policy that could not answer is asked again."""

PLAN_LIMIT = 600
"""Slots looked at, and about as many actions, in one call of `plan`: some milliseconds."""

_RUNNING = TaskState.RUNNING


class Nodes(Protocol):
    """The nodes, as they are now."""

    def get(self, id: str, /) -> Node | None: ...
    def all(self) -> Iterable[Node]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What planners look up beside their own service."""

    nodes: Nodes
    cluster: Callable[[], Cluster | None]
    new_id: IdSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a plan is made, and by which plugins."""

    now: float
    """Seconds since the epoch."""
    monotonic: float
    plugins: PluginSet


@dataclass(frozen=True, slots=True)
class _Start:
    due: float
    deadline: float
    """When it starts although the task before it has not stopped. Runs from the beginning, beside the delay."""


class ServicePlanner(ABC):
    """The part that all kinds of services share: slots, restarts, delayed starts, timers."""

    final_state = _RUNNING
    """The highest desired state of a task that is wanted."""

    def __init__(self, service: Service, world: World) -> None:
        self.service = service
        self.world = world
        self.slots: dict[Key, Slot] = {}
        self.touched: dict[Key, None] = {}
        self.live = 0
        """Slots that count as instances."""
        self.dead: dict[Key, None] = {}
        """Slots that hold tasks of the past and no instance."""
        self.is_due = True
        """The service as a whole is to be looked at, once no slot is left to look at."""
        self._timers: list[tuple[float, int, Key | None]] = []
        self._timer_number = 0
        self._starts: dict[str, _Start] = {}
        self._template: TaskTemplate | None = None

    # Feeding

    def set_service(self, service: Service) -> None:
        """The service changed. What only says how its update goes needs no new look at its slots."""
        old, self.service = self.service, service
        self._template = None
        self.is_due = True
        if service.spec != old.spec or service.spec_version != old.spec_version or service.job_status != old.job_status:
            self.touch_all()

    def put(self, task: Task) -> None:
        """A task is new or changed."""
        id = task.id
        key = self.key_of(task)
        slot = self.slots.get(key)
        if slot is None:
            slot = self.slots[key] = Slot()
        old = slot.tasks.get(id)
        if old is None:
            slot.add(task)
            self.touched[key] = None
            return
        slot.tasks[id] = task
        state = task.status.state
        if task.desired_state != old.desired_state:
            self.touched[key] = None
        elif state != old.status.state:
            if state > _RUNNING or (state == _RUNNING and self._is_awaited(key, id)):
                self.touched[key] = None
        elif task.node_id != old.node_id and not is_usable(self.world.nodes.get(task.node_id)):
            self.touched[key] = None

    def remove(self, task: Task) -> None:
        """A task is gone from the store."""
        key = self.key_of(task)
        slot = self.slots.get(key)
        if slot is None or slot.tasks.pop(task.id, None) is None:
            return
        self._starts.pop(task.id, None)
        self.touched[key] = None

    def touch(self, key: Key) -> None:
        """Have a slot looked at again."""
        self.touched[key] = None

    def touch_all(self) -> None:
        """Have everything looked at again."""
        self.touched.update(dict.fromkeys(self.slots))
        self.is_due = True

    def forget_template(self) -> None:
        """New tasks may look different: the cluster's defaults changed."""
        self._template = None

    def forget_starts(self) -> None:
        """Drop the delays of tasks that were planned and never came to be."""
        known = {id for slot in self.slots.values() for id in slot.tasks} if self._starts else set()
        for id in self._starts.keys() - known:
            del self._starts[id]

    # Planning

    @property
    def has_work(self) -> bool:
        return self.is_due or bool(self.touched)

    @property
    def next_wake(self) -> float | None:
        """The monotonic time at which to plan though nothing was fed."""
        return self._timers[0][0] if self._timers else None

    def plan(self, moment: Moment, limit: int = PLAN_LIMIT) -> list[Action]:
        """Return what to do now. To be carried out, and the outcome fed, before the next call."""
        while self._timers and self._timers[0][0] <= moment.monotonic:
            key = heapq.heappop(self._timers)[2]
            if key is None:
                self.is_due = True
            elif key in self.slots:
                self.touched[key] = None
        actions: list[Action] = []
        looks = 0
        while self.touched and looks < limit and len(actions) < limit:
            key = next(iter(self.touched))
            del self.touched[key]
            looks += 1
            self.is_due = True
            slot = self.slots.get(key)
            if slot is not None and not slot.tasks:
                self._classify(key, slot, is_live=False)
                del self.slots[key]
                self.dead.pop(key, None)
                self._on_slot_gone(key)
                slot = None
            self._look(key, slot, moment, actions)
        # Where many slots were looked at, the service has its turn in the next call.
        if self.is_due and not self.touched and len(actions) < limit and looks <= limit // 2:
            self.is_due = False
            self._plan_service(moment, actions, limit)
        return actions

    def wake_at(self, monotonic: float, key: Key | None) -> None:
        """Have a slot, or (None) the service as a whole, looked at again at that time."""
        self._timer_number += 1
        heapq.heappush(self._timers, (monotonic, self._timer_number, key))

    # What the kinds of services say

    @abstractmethod
    def key_of(self, task: Task) -> Key:
        """The slot a task belongs to."""

    @abstractmethod
    def _place(self, key: Key) -> tuple[int, str]:
        """Slot number and node id of new tasks in a slot."""

    @abstractmethod
    def _look(self, key: Key, slot: Slot | None, moment: Moment, actions: list[Action]) -> None:
        """Do what one slot needs, and classify it."""

    def _plan_service(self, moment: Moment, actions: list[Action], limit: int) -> None:
        """Do what the service needs as a whole. Every slot is classified by now."""
        return

    def _is_awaited(self, key: Key, task_id: str) -> bool:
        """Whether somebody waits for this task to run."""
        return False

    def _on_slot_gone(self, key: Key) -> None:
        """A slot has no task any more, or no live one."""
        return

    def _on_restart(self, key: Key, slot: Slot, task: Task) -> bool:
        """Whether a task that ended gets no successor because another one has its place."""
        return False

    # What they share

    def _active(self, slot: Slot) -> list[Task]:
        final = self.final_state
        return [task for task in slot.tasks.values() if task.desired_state <= final]

    def _classify(self, key: Key, slot: Slot, *, is_live: bool) -> None:
        if is_live:
            if not slot.is_live:
                self.live += 1
                slot.is_live = True
                self.dead.pop(key, None)
        else:
            if slot.is_live:
                self.live -= 1
                slot.is_live = False
            self.dead[key] = None
            self._on_slot_gone(key)

    def _create(
        self,
        key: Key,
        *,
        is_held_back: bool = False,
        shuts_down: Iterable[str] = (),
        restarts: str = "",
    ) -> CreateTask:
        template = self._template
        if template is None:
            template = self._template = TaskTemplate(self.service, self.world.cluster())
        number, node_id = self._place(key)
        return CreateTask(
            task_id=self.world.new_id(),
            template=template,
            slot=number,
            node_id=node_id,
            is_held_back=is_held_back,
            shuts_down=tuple(shuts_down),
            restarts=restarts,
        )

    def _tend(self, key: Key, slot: Slot, active: list[Task], moment: Moment, actions: list[Action]) -> None:
        """Restart the tasks of a slot that ended or lost their node; start those whose time has come."""
        for task in active:
            if has_ended(task) or (task.node_id and not is_usable(self.world.nodes.get(task.node_id))):
                self._restart(key, slot, task, moment, actions)
            elif task.desired_state < self.final_state:
                self._maybe_start(key, slot, task, moment, actions)

    def _maybe_start(self, key: Key, slot: Slot, task: Task, moment: Moment, actions: list[Action]) -> None:
        later = self._hold_until(slot, task, moment)
        if later is None:
            actions.append(SetDesiredState(task.id, self.final_state))
            self._starts.pop(task.id, None)
        else:
            self.wake_at(later, key)

    def _restart(self, key: Key, slot: Slot, task: Task, moment: Moment, actions: list[Action]) -> None:
        if task.desired_state < self.final_state:
            # It ended before its own start: not tried again sooner than it would have started.
            later = self._hold_until(slot, task, moment)
            if later is not None:
                self.wake_at(later, key)
                return
        if self._on_restart(key, slot, task):
            actions.append(SetDesiredState(task.id, TaskState.SHUTDOWN))
            return
        decision = decide(moment.plugins, self.service, task, slot, moment.now)
        if isinstance(decision, Held):
            self._hold(key, task, decision, moment, actions)
            return
        if isinstance(decision, NoRestart):
            actions.append(SetDesiredState(task.id, TaskState.SHUTDOWN))
            return
        delay = 0.0 if is_drained(self.world.nodes.get(task.node_id)) else decision.delay
        successor = self._create(key, is_held_back=True, restarts=task.id)
        self._delay(successor, delay, moment)
        actions.append(successor)

    def _hold(self, key: Key, task: Task, held: Held, moment: Moment, actions: list[Action]) -> None:
        self.wake_at(moment.monotonic + HELD_SECONDS, key)
        if task.status.message != held.reason:
            actions.append(ExplainTask(task.id, held.reason))

    def _delay(self, successor: CreateTask, delay: float, moment: Moment) -> None:
        at = moment.monotonic
        self._starts[successor.task_id] = _Start(at + delay, at + OLD_TASK_SECONDS)

    def _hold_until(self, slot: Slot, task: Task, moment: Moment) -> float | None:
        """When to look again at a task that is not to start yet; None when it may start now."""
        start = self._starts.get(task.id)
        if start is None:
            start = self._starts[task.id] = self._recall_start(slot, task, moment)
        if moment.monotonic < start.due:
            return start.due
        if moment.monotonic < start.deadline and self._is_stopping(slot, task):
            return start.deadline
        return None

    def _recall_start(self, slot: Slot, task: Task, moment: Moment) -> _Start:
        """The start of a task that another leader made: a restart has a delay, an update has none."""
        made = moment.monotonic - max(0.0, moment.now - seconds(task.meta.created_at))
        before = [
            other for other in slot.tasks.values() if other is not task and other.desired_state > self.final_state
        ]
        delay = 0.0
        if before:
            last = max(before, key=status_time)
            if last.spec_version == task.spec_version and not is_drained(self.world.nodes.get(last.node_id)):
                # The policy's answer about what came before the restart is the same as it was then.
                decision = decide(moment.plugins, self.service, last, slot, moment.now)
                delay = decision.delay if isinstance(decision, Restart) else restart_delay(task)
        return _Start(made + delay, made + OLD_TASK_SECONDS)

    def _is_stopping(self, slot: Slot, task: Task) -> bool:
        """Whether a task of the slot is asked to stop, on a node that can, and has not yet."""
        for other in slot.tasks.values():
            if (
                other is not task
                and other.desired_state > self.final_state
                and other.node_id
                and other.status.state <= _RUNNING
                and not is_out_of_reach(self.world.nodes.get(other.node_id))
            ):
                return True
        return False

    def _clear_dead_slots(self, actions: list[Action], limit: int) -> None:
        """Forget the tasks of slots that are nobody's; what still runs is stopped first and deleted by the reaper."""
        for key in list(islice(self.dead, limit)):
            if len(actions) >= limit:
                break
            del self.dead[key]
            for task in self.slots[key].tasks.values():
                if has_ended(task) or task.status.state < TaskState.ASSIGNED:
                    actions.append(DeleteTask(task.id))
                elif task.desired_state < TaskState.REMOVE:
                    actions.append(SetDesiredState(task.id, TaskState.REMOVE))
        if self.dead:
            self.is_due = True


class RemovedServicePlanner(ServicePlanner):
    """A service that is gone: each of its tasks is to stop and to be forgotten."""

    def __init__(self, service: Service, world: World, before: ServicePlanner | None = None) -> None:
        """`before` served the service while it was there: its slots are taken over."""
        super().__init__(service, world)
        self._before = before
        if before is not None:
            self.slots = before.slots
            self.touch_all()

    def key_of(self, task: Task) -> Key:
        return self._before.key_of(task) if self._before is not None else task.slot or task.node_id

    def _place(self, key: Key) -> tuple[int, str]:
        raise NotImplementedError("a service that is gone gets no task")

    def _look(self, key: Key, slot: Slot | None, moment: Moment, actions: list[Action]) -> None:
        for task in slot.tasks.values() if slot is not None else ():
            if task.desired_state < TaskState.REMOVE:
                actions.append(SetDesiredState(task.id, TaskState.REMOVE))
