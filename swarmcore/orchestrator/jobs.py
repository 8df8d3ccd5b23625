"""Jobs: tasks that run to completion, some at a time or one on each node (SwarmKit: 4.4, 4.5).

Each update of a job is a new iteration; tasks of the iteration before are stopped, older ones forgotten.
"""

from __future__ import annotations

from typing import cast

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.orchestrator.actions import Action, DeleteTask, SetDesiredState
from swarmcore.orchestrator.dirty import satisfies
from swarmcore.orchestrator.everywhere import PerNodePlanner, is_member
from swarmcore.orchestrator.planner import Moment, ServicePlanner, World
from swarmcore.orchestrator.restarts import Held, decide
from swarmcore.orchestrator.slots import Key, Slot, ended_by_itself, has_ended, is_usable, retention_of
from swarmcore.plugin.restart import NoRestart


class JobPlanner(ServicePlanner):
    """What both kinds of jobs share."""

    final_state = TaskState.COMPLETE

    @property
    def iteration(self) -> int:
        return self.service.job_status.job_iteration.index

    def _current(self, slot: Slot) -> list[Task]:
        """The tasks of this iteration."""
        iteration = self.iteration
        return [task for task in slot.tasks.values() if task.job_iteration.index == iteration]

    def _restart_ended(self, key: Key, slot: Slot, active: list[Task], moment: Moment, actions: list[Action]) -> None:
        """Restart what failed and start what waits. Nodes make no difference to tasks of a job that run."""
        for task in active:
            if has_ended(task):
                self._restart(key, slot, task, moment, actions)
            elif task.desired_state < self.final_state:
                self._maybe_start(key, slot, task, moment, actions)

    def _is_given_up(self, key: Key, slot: Slot, tasks: list[Task], moment: Moment, actions: list[Action]) -> bool:
        """Whether the job failed in this slot as often as it may."""
        if not tasks or not ended_by_itself(tasks[-1]):
            return False
        decision = decide(moment.plugins, self.service, tasks[-1], slot, moment.now)
        if isinstance(decision, Held):
            self._hold(key, tasks[-1], decision, moment, actions)
        return isinstance(decision, Held | NoRestart)

    def _forget_failures(self, tasks: list[Task], actions: list[Action]) -> None:
        """Keep as many tasks that failed as the cluster keeps of any slot."""
        keep = retention_of(self.world.cluster())
        if keep < 0:
            return
        past = [
            task
            for task in tasks
            if has_ended(task) and task.desired_state > self.final_state and task.status.state != TaskState.COMPLETE
        ]
        actions.extend(DeleteTask(task.id) for task in past[: max(0, len(past) - max(1, keep))])


class ReplicatedJobPlanner(JobPlanner):
    """Slots 0 to `total_completions` - 1; each is done by one task that completes."""

    def __init__(self, service: Service, world: World) -> None:
        super().__init__(service, world)
        self._completed: set[Key] = set()
        self._running: set[Key] = set()
        self._used: set[Key] = set()
        self._lowest = 0

    def set_service(self, service: Service) -> None:
        self._lowest = 0
        super().set_service(service)

    def touch_all(self) -> None:
        self._lowest = 0
        super().touch_all()

    def key_of(self, task: Task) -> Key:
        return task.slot

    def _place(self, key: Key) -> tuple[int, str]:
        return cast(int, key), ""

    def _look(self, key: Key, slot: Slot | None, moment: Moment, actions: list[Action]) -> None:
        for group in (self._completed, self._running, self._used):
            group.discard(key)
        if slot is None:
            self._lowest = min(self._lowest, cast(int, key))
            return
        self._retire(slot, actions)
        tasks = self._current(slot)
        if not tasks:
            self._lowest = min(self._lowest, cast(int, key))
            return
        if any(task.status.state == TaskState.COMPLETE for task in tasks):
            self._used.add(key)
            self._completed.add(key)
            return
        active = [task for task in tasks if task.desired_state <= TaskState.COMPLETE]
        if active:
            self._used.add(key)
            self._running.add(key)
        elif self._is_given_up(key, slot, tasks, moment, actions):
            self._used.add(key)
        else:
            # Its last task was removed: another one takes its place.
            self._lowest = min(self._lowest, cast(int, key))
        self._restart_ended(key, slot, active, moment, actions)
        self._forget_failures(tasks, actions)

    def _retire(self, slot: Slot, actions: list[Action]) -> None:
        """Stop what an earlier iteration runs, and forget all but the last of them."""
        iteration = self.iteration
        for task in slot.tasks.values():
            age = iteration - task.job_iteration.index
            if age and task.desired_state < TaskState.REMOVE and (age > 1 or not has_ended(task)):
                actions.append(SetDesiredState(task.id, TaskState.REMOVE))

    def _plan_service(self, moment: Moment, actions: list[Action], limit: int) -> None:
        job = self.service.spec.replicated_job
        total, completed, running = job.total_completions, len(self._completed), len(self._running)
        count = min(job.max_concurrent - running, total - completed - running)
        number = self._lowest
        while count > 0 and number < total:
            if len(actions) >= limit:
                self.is_due = True
                break
            if number not in self._used:
                actions.append(self._create(number))
                count -= 1
            number += 1
        self._lowest = number


class GlobalJobPlanner(PerNodePlanner, JobPlanner):
    """One task on each node. A node that appears later takes part too."""

    def _look(self, key: Key, slot: Slot | None, moment: Moment, actions: list[Action]) -> None:
        node = self.world.nodes.get(cast(str, key))
        if node is None:
            actions.extend(DeleteTask(id) for id in (slot.tasks if slot is not None else ()))
            return
        if slot is None:
            if self._can_begin(node):
                actions.append(self._create(key))
            return
        iteration = self.iteration
        for task in slot.tasks.values():
            if task.job_iteration.index != iteration and task.desired_state < TaskState.REMOVE:
                actions.append(SetDesiredState(task.id, TaskState.REMOVE))
        tasks = self._current(slot)
        active = [task for task in tasks if task.desired_state <= TaskState.COMPLETE]
        if any(task.status.state == TaskState.COMPLETE for task in tasks):
            return
        if not is_usable(node):
            actions.extend(SetDesiredState(task.id, TaskState.SHUTDOWN) for task in active)
            return
        if active:
            self._restart_ended(key, slot, active, moment, actions)
        elif self._can_begin(node) and not self._is_given_up(key, slot, tasks, moment, actions):
            actions.append(self._create(key))
        self._forget_failures(tasks, actions)

    def _can_begin(self, node: Node) -> bool:
        return (
            is_member(node)
            and node.spec.availability == NodeSpec.Availability.ACTIVE
            and node.status.state == NodeStatus.READY
            and satisfies(node, self.service.spec.task)
        )
