"""Rolling updates: some slots at a time, with a pause between, watched, stopped or rolled back (SwarmKit: part 5).

Where an update is can be read off the tasks: a slot whose tasks are not what the service asks for waits for its turn,
one whose new task does not run yet takes part. So another leader goes on where this one stopped, and a rollback is
an update to the spec before: tasks that are on it already are left alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import TaskState, UpdateConfig, UpdateStatus
from swarmcore.orchestrator.actions import Action, RollBack, SetDesiredState, SetUpdateStatus
from swarmcore.orchestrator.dirty import Difference, difference, is_dirty_by
from swarmcore.orchestrator.planner import Moment, ServicePlanner, World
from swarmcore.orchestrator.restarts import Held, decide
from swarmcore.orchestrator.slots import Key, Slot, has_ended, seconds, status_time
from swarmcore.plugin.restart import NoRestart

MONITOR_SECONDS = 5.0

_RUNNING = TaskState.RUNNING
_PAUSED = (UpdateStatus.PAUSED, UpdateStatus.ROLLBACK_PAUSED)
_GOING_ON = (UpdateStatus.UPDATING, UpdateStatus.ROLLBACK_STARTED)


class UpdateRun:
    """One update to one spec version, as this leader has seen it."""

    def __init__(self, service: Service, slots: int) -> None:
        self.version = service.spec_version.index
        self.is_rollback = service.update_status.state == UpdateStatus.ROLLBACK_STARTED
        config = config_of(service, is_rollback=self.is_rollback)
        self.parallelism = config.parallelism
        """Slots at a time; 0 is all at once."""
        self.delay = config.delay.seconds + config.delay.nanos / 1e9
        self.monitor = MONITOR_SECONDS
        if config.HasField("monitor"):
            self.monitor = config.monitor.seconds + config.monitor.nanos / 1e9
        self.action = config.failure_action
        self.max_failure_ratio = config.max_failure_ratio
        self.is_start_first = config.order == UpdateConfig.START_FIRST
        self.slots = slots
        """How many slots had to be updated when it began."""
        self.in_flight: dict[Key, str] = {}
        """Slots that are being updated, with the task that has to run."""
        self.cooling: deque[float] = deque()
        """When those that finished a slot may take the next one."""
        self.watched: dict[str, float | None] = {}
        """Tasks made by it, with the time they were first seen running."""
        self.failures = 0
        self.failed_task = ""
        self.done_at: float | None = None
        self.has_worked = False
        self.is_stopped = False

    def free(self, monotonic: float) -> float:
        """How many slots may be taken on now."""
        while self.cooling and self.cooling[0] <= monotonic:
            self.cooling.popleft()
        if not self.parallelism:
            return float("inf")
        return self.parallelism - len(self.in_flight) - len(self.cooling)

    def finish(self, key: Key, monotonic: float) -> None:
        """The new task of a slot runs, or will not."""
        del self.in_flight[key]
        if self.delay > 0:
            self.cooling.append(monotonic + self.delay)

    def observe(self, task: Task, monotonic: float) -> None:
        """Take note of a task that was made by it: whether it runs, and whether it failed while it was watched."""
        since = self.watched[task.id]
        state = task.status.state
        if state == _RUNNING:
            if since is None:
                self.watched[task.id] = monotonic
        elif state > _RUNNING:
            del self.watched[task.id]
            was_stopped = state == TaskState.SHUTDOWN and task.desired_state > _RUNNING
            if not was_stopped and (since is None or monotonic - since <= self.monitor):
                self.failures += 1
                self.failed_task = task.id

    @property
    def has_failed(self) -> bool:
        """Whether more tasks failed than the service allows."""
        if self.action == UpdateConfig.CONTINUE or not self.failures:
            return False
        # The ratio has single precision on the wire: 0.7 arrives as a little less.
        return self.failures / max(1, self.slots) > self.max_failure_ratio + 1e-6

    @property
    def watch_seconds(self) -> float:
        """How long the last slot is watched before the update is complete."""
        return self.monitor if self.delay < self.monitor else self.delay + 1.0


class UpdatingPlanner(ServicePlanner):
    """A service whose tasks follow its spec by rolling updates."""

    def __init__(self, service: Service, world: World) -> None:
        super().__init__(service, world)
        self.dirty: dict[Key, None] = {}
        """Live slots that are not what the service asks for."""
        self.run: UpdateRun | None = None
        self._differences: dict[int, Difference] = {}
        self._resumable: dict[Key, Task] = {}

    def set_service(self, service: Service) -> None:
        self._differences.clear()
        super().set_service(service)

    def touch_all(self) -> None:
        if self.run is not None and self.run.is_stopped:
            self.run = None
        super().touch_all()

    def remove(self, task: Task) -> None:
        if self.run is not None:
            self.run.watched.pop(task.id, None)
        super().remove(task)

    def is_dirty(self, task: Task) -> bool:
        """Whether the task has to be replaced."""
        version = task.spec_version.index
        found = self._differences.get(version)
        if found is None:
            found = self._differences[version] = difference(self.service, task)
        if found is Difference.NONE:
            return False
        node = self.world.nodes.get(task.node_id) if task.node_id else None
        return is_dirty_by(found, self.service, task, node)

    # Slots

    def _is_awaited(self, key: Key, task_id: str) -> bool:
        run = self.run
        return run is not None and (key in run.in_flight or task_id in run.watched)

    def _on_slot_gone(self, key: Key) -> None:
        self.dirty.pop(key, None)
        if self.run is not None:
            self.run.in_flight.pop(key, None)

    def _on_restart(self, key: Key, slot: Slot, task: Task) -> bool:
        return any(
            other is not task and not has_ended(other) and not self.is_dirty(other) for other in self._active(slot)
        )

    def _tend_and_judge(self, key: Key, slot: Slot, moment: Moment, actions: list[Action]) -> None:
        """Do what the live tasks of a slot need, and classify it by what they will be then."""
        active = self._active(slot)
        before = len(actions)
        self._tend(key, slot, active, moment, actions)
        if len(actions) > before:
            # Looked at again once that is done; until then it is no work for the updater.
            self._classify(key, slot, is_live=True)
            self.dirty.pop(key, None)
        else:
            self._judge(key, slot, active, moment, actions)
        self._follow(key, slot, moment, actions)

    def _judge(self, key: Key, slot: Slot, active: list[Task], moment: Moment, actions: list[Action]) -> None:
        """Classify a slot by its live tasks; where it has none, by whether its last one is to be its last."""
        if not active:
            newest = self._last_word(key, slot, moment, actions)
            if newest is None:
                self._classify(key, slot, is_live=False)
                return
            active = [newest]
        self._classify(key, slot, is_live=True)
        if len(active) > 1 or self.is_dirty(active[0]):
            self.dirty[key] = None
            return
        self.dirty.pop(key, None)
        service = self.service
        if self.run is None and service.HasField("update_status") and service.update_status.state in _GOING_ON:
            self._resumable[key] = active[0]

    def _last_word(self, key: Key, slot: Slot, moment: Moment, actions: list[Action]) -> Task | None:
        """The newest task of a slot without live ones, where it is not to be followed by another; else None."""
        if self.service.update_status.state == UpdateStatus.ROLLBACK_STARTED:
            return None
        newest = slot.newest()
        if newest.desired_state >= TaskState.REMOVE or not self._may_hold(newest):
            return None
        decision = decide(moment.plugins, self.service, newest, slot, moment.now)
        if isinstance(decision, Held):
            self._hold(key, newest, decision, moment, actions)
        return newest if isinstance(decision, Held | NoRestart) else None

    def _may_hold(self, task: Task) -> bool:
        """Whether a task that is over can keep its slot."""
        return True

    def _follow(self, key: Key, slot: Slot, moment: Moment, actions: list[Action]) -> None:
        """See what became of a slot that is being updated."""
        run = self.run
        if run is None:
            return
        if run.watched:
            for task in slot.tasks.values():
                if task.id in run.watched:
                    run.observe(task, moment.monotonic)
        awaited = run.in_flight.get(key)
        if awaited is None:
            return
        new = slot.tasks.get(awaited)
        if new is None or new.status.state >= _RUNNING or new.desired_state > _RUNNING:
            if new is not None and new.status.state == _RUNNING and new.desired_state <= _RUNNING:
                self._shut_down(self._others(slot, new), actions)
            run.finish(key, moment.monotonic)

    def _others(self, slot: Slot, task: Task) -> list[Task]:
        return [other for other in self._active(slot) if other is not task]

    @staticmethod
    def _shut_down(tasks: Iterable[Task], actions: list[Action]) -> None:
        actions.extend(SetDesiredState(task.id, TaskState.SHUTDOWN) for task in tasks)

    # The service

    def _plan_update(self, moment: Moment, actions: list[Action], limit: int) -> None:
        """Take on as many slots as may be, and say where the update is."""
        service = self.service
        state = service.update_status.state if service.HasField("update_status") else None
        if state in _PAUSED:
            self._resumable.clear()
            return
        run = self._current_run(state, moment)
        if run is None or run.is_stopped:
            return
        if run.has_failed:
            run.is_stopped = True
            actions.append(self._on_failure(run))
            return
        if state is None and self.dirty:
            actions.append(self._status(UpdateStatus.UPDATING, "update in progress"))
        self._take_on(run, moment, actions, limit)
        if self.dirty or run.in_flight or run.cooling:
            run.done_at = None
            if run.cooling:
                self.wake_at(run.cooling[0], None)
            return
        self._maybe_complete(run, state, moment, actions)

    def _current_run(self, state: UpdateStatus.UpdateState.ValueType | None, moment: Moment) -> UpdateRun | None:
        run = self.run
        is_rollback = state == UpdateStatus.ROLLBACK_STARTED
        version = self.service.spec_version.index
        if run is not None and run.version == version and run.is_rollback == is_rollback:
            if not run.is_stopped or not self.dirty:
                return run
            if state in _GOING_ON or state is None:
                # Its own word on how it ended is not in the store yet.
                return run
        if not self.dirty and state not in _GOING_ON:
            self.run = None
            return None
        resumable, self._resumable = self._resumable, {}
        self.run = UpdateRun(self.service, len(self.dirty))
        self._adopt(self.run, resumable, moment)
        return self.run

    def _adopt(self, run: UpdateRun, tasks: dict[Key, Task], moment: Moment) -> None:
        """Go on with what another leader began: its new tasks are waited for, watched, and its pauses kept."""
        started = seconds(self.service.update_status.started_at)
        resting: list[float] = []
        for key, task in tasks.items():
            if seconds(task.meta.created_at) < started or task.spec_version.index != run.version:
                continue
            age = max(0.0, moment.now - status_time(task)[0])
            if task.status.state < _RUNNING and not has_ended(task):
                run.in_flight[key] = task.id
                run.watched[task.id] = None
            elif task.status.state == _RUNNING and age <= max(run.monitor, run.delay):
                run.watched[task.id] = moment.monotonic - age
                if age < run.delay:
                    resting.append(moment.monotonic - age + run.delay)
            else:
                continue
            run.slots += 1
            run.has_worked = True
        run.cooling.extend(sorted(resting))

    def _take_on(self, run: UpdateRun, moment: Moment, actions: list[Action], limit: int) -> None:
        free = run.free(moment.monotonic)
        if free <= 0:
            return
        for key in self.dirty:
            if free <= 0:
                return
            if len(actions) >= limit:
                self.is_due = True
                return
            if key in run.in_flight:
                continue
            run.in_flight[key] = self._begin(run, key, self.slots[key], moment, actions)
            run.has_worked = True
            free -= 1

    def _begin(self, run: UpdateRun, key: Key, slot: Slot, moment: Moment, actions: list[Action]) -> str:
        """Begin to update a slot; returns the task that has to run for it to be done."""
        active = self._active(slot)
        clean = [task for task in active if not has_ended(task) and not self.is_dirty(task)]
        if clean:
            keep = max(clean, key=lambda task: (task.status.state == _RUNNING, task.desired_state))
            if keep.status.state == _RUNNING or not run.is_start_first:
                self._shut_down(self._others(slot, keep), actions)
            if keep.status.state == _RUNNING:
                self.touch(key)
            return keep.id
        going = [task.id for task in active]
        new = self._create(key, is_held_back=True, shuts_down=() if run.is_start_first else going)
        self._delay(new, 0.0, moment)
        run.watched[new.task_id] = None
        actions.append(new)
        return new.task_id

    def _maybe_complete(
        self, run: UpdateRun, state: UpdateStatus.UpdateState.ValueType | None, moment: Moment, actions: list[Action]
    ) -> None:
        if run.done_at is None:
            run.done_at = moment.monotonic
        end = run.done_at + (run.watch_seconds if run.has_worked else 0.0)
        if moment.monotonic < end:
            self.wake_at(end, None)
            return
        run.is_stopped = True
        run.watched.clear()
        if state == UpdateStatus.ROLLBACK_STARTED:
            actions.append(self._status(UpdateStatus.ROLLBACK_COMPLETED, "rollback completed"))
        elif state == UpdateStatus.UPDATING:
            actions.append(self._status(UpdateStatus.COMPLETED, "update completed"))

    def _on_failure(self, run: UpdateRun) -> Action:
        why = f"due to failure or early termination of task {run.failed_task}"
        if run.is_rollback:
            return self._status(UpdateStatus.ROLLBACK_PAUSED, f"rollback paused {why}")
        if run.action == UpdateConfig.ROLLBACK and self.service.HasField("previous_spec"):
            return RollBack(service_id=self.service.id, spec_version=run.version, message=f"update rolled back {why}")
        return self._status(UpdateStatus.PAUSED, f"update paused {why}")

    def _status(self, state: UpdateStatus.UpdateState.ValueType, message: str) -> SetUpdateStatus:
        return SetUpdateStatus(
            service_id=self.service.id,
            spec_version=self.service.spec_version.index,
            state=state,
            message=message,
        )


def config_of(service: Service, *, is_rollback: bool) -> UpdateConfig:
    """How `service` wants its update, or its rollback, done."""
    if is_rollback:
        return service.spec.rollback if service.spec.HasField("rollback") else UpdateConfig(parallelism=1)
    return service.spec.update if service.spec.HasField("update") else UpdateConfig(parallelism=1)
