"""Replicated services: as many slots as the service asks for, each with one task (SwarmKit: 4.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import cast

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.orchestrator.actions import Action, SetDesiredState
from swarmcore.orchestrator.planner import Moment, World
from swarmcore.orchestrator.slots import Key, Slot
from swarmcore.orchestrator.updates import UpdatingPlanner
from swarmcore.orchestrator.victims import Standing, choose_victims, standing_of

SLOTS_PER_SURVEY = 2000


class ReplicatedPlanner(UpdatingPlanner):
    """Slots are numbered from 1; a new instance takes the lowest number that is free."""

    def __init__(self, service: Service, world: World) -> None:
        super().__init__(service, world)
        self._lowest = 1
        """No number below is free."""
        self._victims: deque[int] = deque()
        self._survey: Iterator[tuple[Key, Slot]] | None = None
        self._standings: dict[int, Standing] = {}

    def set_service(self, service: Service) -> None:
        self._forget_victims()
        super().set_service(service)

    def touch_all(self) -> None:
        self._lowest = 1
        super().touch_all()

    def key_of(self, task: Task) -> Key:
        return task.slot

    def _place(self, key: Key) -> tuple[int, str]:
        return cast(int, key), ""

    def _on_slot_gone(self, key: Key) -> None:
        super()._on_slot_gone(key)
        self._lowest = min(self._lowest, max(1, cast(int, key)))

    def _look(self, key: Key, slot: Slot | None, moment: Moment, actions: list[Action]) -> None:
        if slot is not None:
            self._tend_and_judge(key, slot, moment, actions)

    def _plan_service(self, moment: Moment, actions: list[Action], limit: int) -> None:
        replicas = self.service.spec.replicated.replicas
        if self.live > replicas:
            self._give_up(self.live - replicas, actions, limit)
            return
        self._forget_victims()
        if self.live < replicas:
            self._add(replicas - self.live, actions, limit)
        self._clear_dead_slots(actions, limit)
        self._plan_update(moment, actions, limit)

    def _add(self, count: int, actions: list[Action], limit: int) -> None:
        """Make tasks in the lowest free slots. The past of a slot that is used again stays."""
        slots = self.slots
        number = self._lowest
        while count > 0:
            if len(actions) >= limit:
                self.is_due = True
                break
            slot = slots.get(number)
            if slot is None or not slot.is_live:
                self.dead.pop(number, None)
                actions.append(self._create(number))
                count -= 1
            number += 1
        self._lowest = number

    def _give_up(self, count: int, actions: list[Action], limit: int) -> None:
        """Have surplus slots removed, in the order chosen when the surplus was first seen."""
        if not self._victims and not self._choose_some():
            self.is_due = True
            return
        while self._victims and count > 0 and len(actions) < limit:
            slot = self.slots.get(self._victims.popleft())
            if slot is None or not slot.is_live:
                continue
            count -= 1
            actions.extend(
                SetDesiredState(task.id, TaskState.REMOVE)
                for task in slot.tasks.values()
                if task.desired_state < TaskState.REMOVE
            )
        self.is_due = count > 0

    def _choose_some(self) -> bool:
        """Go on choosing who goes, for a part of the slots; True once it is done."""
        if self._survey is None:
            self._survey = iter(list(self.slots.items()))
            self._standings.clear()
        looked = 0
        for key, slot in islice(self._survey, SLOTS_PER_SURVEY):
            if slot.is_live and slot.tasks:
                self._standings[cast(int, key)] = standing_of(self._active(slot) or [slot.newest()])
            looked += 1
        if looked == SLOTS_PER_SURVEY:
            return False
        self._survey = None
        self._victims.extend(choose_victims(self._standings, self.service.spec.replicated.replicas))
        self._standings.clear()
        return True

    def _forget_victims(self) -> None:
        self._victims.clear()
        self._standings.clear()
        self._survey = None
