"""Global services: one task on every node that satisfies the constraints (SwarmKit: 4.3).

Unlike SwarmKit, which replaces outdated tasks of a node at once when the node changes, every update goes through the
updater.
"""

from __future__ import annotations

from typing import cast

from swarmcore.api.brake import is_held
from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.orchestrator.actions import Action, DeleteTask, SetDesiredState
from swarmcore.orchestrator.dirty import satisfies
from swarmcore.orchestrator.planner import Moment, ServicePlanner
from swarmcore.orchestrator.slots import Key, Slot, ended_by_itself, has_ended, is_usable
from swarmcore.orchestrator.updates import UpdatingPlanner


def is_member(node: Node) -> bool:
    """Whether the node was accepted: one that waits for it gets no tasks."""
    return node.spec.membership == NodeSpec.Membership.ACCEPTED


def is_paused(node: Node) -> bool:
    """Whether what it has goes on and nothing new begins: as its operator says, or while the brake holds it."""
    return node.spec.availability == NodeSpec.Availability.PAUSE or is_held(node)


class PerNodePlanner(ServicePlanner):
    """A service of which every node matters, and not only those that its tasks are on: a slot is a node."""

    def key_of(self, task: Task) -> Key:
        return task.node_id

    def _place(self, key: Key) -> tuple[int, str]:
        return 0, cast(str, key)

    def touch_all(self) -> None:
        super().touch_all()
        self.touched.update((node.id, None) for node in self.world.nodes.all())


class GlobalPlanner(PerNodePlanner, UpdatingPlanner):
    """One task on each node."""

    def _may_hold(self, task: Task) -> bool:
        # A task that was stopped because of its node comes back with the node, whatever the policy says.
        return ended_by_itself(task)

    def _look(self, key: Key, slot: Slot | None, moment: Moment, actions: list[Action]) -> None:
        node = self.world.nodes.get(cast(str, key))
        if node is None:
            if slot is not None:
                self._classify(key, slot, is_live=False)
                actions.extend(DeleteTask(id) for id in slot.tasks)
            return
        is_wanted = is_usable(node) and is_member(node) and satisfies(node, self.service.spec.task)
        if slot is None:
            if is_wanted and not is_paused(node):
                actions.append(self._create(key))
        elif not is_wanted:
            self._classify(key, slot, is_live=False)
            self._shut_down(self._active(slot), actions)
        elif is_paused(node):
            self._classify(key, slot, is_live=False)
            self._leave_alone(key, slot, moment, actions)
        else:
            self._tend_and_judge(key, slot, moment, actions)
            if not slot.is_live:
                actions.append(self._create(key))

    def _leave_alone(self, key: Key, slot: Slot, moment: Moment, actions: list[Action]) -> None:
        """On a paused node nothing new begins: what ended is settled, what was made already is started."""
        for task in self._active(slot):
            if has_ended(task):
                actions.append(SetDesiredState(task.id, TaskState.SHUTDOWN))
            elif task.desired_state < self.final_state:
                self._maybe_start(key, slot, task, moment, actions)

    def _plan_service(self, moment: Moment, actions: list[Action], limit: int) -> None:
        self.dead.clear()
        self._plan_update(moment, actions, limit)
