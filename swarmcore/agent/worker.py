"""Applies what the managers assign: secrets and configs into memory, tasks to their task managers (SwarmKit: 8.8)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from swarmcore.agent.dependencies import DependencyStore
from swarmcore.agent.local_state import LocalState, TaskRecord
from swarmcore.agent.reporter import Report, Reporter
from swarmcore.agent.task_manager import Deadlines, TaskManager
from swarmcore.api.dispatcher_pb2 import AssignmentChange, AssignmentsMessage
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.clock import Clock, SystemClock
from swarmcore.plugin.executor import Dependencies, Executor

log = logging.getLogger("swarmcore.agent")

CHANGES_PER_TURN: Final = 50


class Worker:
    """All tasks of this node."""

    def __init__(
        self,
        *,
        executors: Mapping[str, Executor],
        folder: Path,
        reporter: Reporter,
        clock: Clock | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`executors` by runtime; `folder` is for the agent's own state and is made if need be."""
        self.executors = executors
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.deadlines = deadlines if deadlines is not None else Deadlines()
        self._state = LocalState(folder)
        self._reporter = reporter
        self._dependencies = DependencyStore()
        self._managers: dict[str, TaskManager] = {}
        self._again: dict[str, Task] = {}
        """Assigned again while they are being removed."""
        self._synced = asyncio.Event()
        """The managers have said once what this node shall have."""
        self._changed = asyncio.Event()
        self._is_leaving = False
        self.on_task: set[asyncio.Event] = set()
        """Set when a task comes: for those that follow logs."""

    @property
    def managers(self) -> Mapping[str, TaskManager]:
        """By task id, those being removed included."""
        return self._managers

    async def start(self) -> None:
        """Take up the tasks of the last run, each by its executor's `recover`. Returns when all were looked for once.

        Raises ConfigurationError where the folder can't be written.
        """
        records = await self._state.open()
        for record in records:
            recovered = record.status.state >= TaskState.PREPARING
            self._begin(record, recovered=recovered)
        if records:
            log.info("finding %d task%s of the last run again", len(records), "s" if len(records) != 1 else "")
        began = self.clock.monotonic()
        for manager in list(self._managers.values()):
            await manager.resolved.wait()
        if records:
            log.info("looked for all of them in %.1f s", self.clock.monotonic() - began)

    async def aclose(self) -> None:
        """Let go of all tasks; they go on running."""
        managers = list(self._managers.values())
        if managers:
            await asyncio.gather(*(manager.aclose() for manager in managers))
        self._managers.clear()
        await self._state.aclose()

    async def leave(self) -> None:
        """Stop and remove all tasks; return when nothing is left of them. Later assignments are ignored."""
        self._is_leaving = True
        self._again.clear()
        for manager in list(self._managers.values()):
            manager.remove()
        while self._managers:
            self._changed.clear()
            await self._changed.wait()
        await self._state.flush()

    def statuses(self) -> list[Report]:
        """What was observed of each task that is assigned."""
        return [(id, manager.status) for id, manager in self._managers.items() if not manager.is_removed]

    # Assignments

    async def assign(self, message: AssignmentsMessage) -> None:
        """Apply a message: first what tasks need, then the tasks."""
        if self._is_leaving:
            return
        updates = [change.assignment for change in message.changes if change.action == AssignmentChange.UPDATE]
        removals = [change.assignment for change in message.changes if change.action == AssignmentChange.REMOVE]
        tasks = [assignment.task for assignment in updates if assignment.HasField("task")]
        if message.type == AssignmentsMessage.COMPLETE:
            self._dependencies.reset()
            self._synced.set()
            kept = {task.id for task in tasks}
            gone = [id for id in self._managers if id not in kept]
        else:
            gone = [assignment.task.id for assignment in removals if assignment.HasField("task")]
            for assignment in removals:
                if assignment.HasField("secret"):
                    self._dependencies.secrets.pop(assignment.secret.id, None)
                elif assignment.HasField("config"):
                    self._dependencies.configs.pop(assignment.config.id, None)
        for assignment in updates:
            if assignment.HasField("secret"):
                self._dependencies.put_secret(assignment.secret)
            elif assignment.HasField("config"):
                self._dependencies.put_config(assignment.config)
        for task_id in gone:
            self._unassign(task_id)
        for number, task in enumerate(tasks, start=1):
            self._assign(task)
            if number % CHANGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def assign_all(self, tasks: Sequence[Task]) -> None:
        """Apply a full list of tasks, as managers send that know no assignments."""
        message = AssignmentsMessage(type=AssignmentsMessage.COMPLETE)
        for task in tasks:
            message.changes.add().assignment.task.CopyFrom(task)
        await self.assign(message)

    def _assign(self, sent: Task) -> None:
        if self._is_leaving:
            return
        task = Task()
        task.CopyFrom(sent)
        status = TaskStatus()
        status.CopyFrom(sent.status)
        task.ClearField("status")
        manager = self._managers.get(task.id)
        if manager is None:
            record = TaskRecord(task=task, status=status)
            self._state.save(record)
            # A state that only an agent reports, and no record of it here: our file was lost, the task maybe not.
            self._begin(record, recovered=status.state >= TaskState.PREPARING)
        elif manager.is_removed:
            self._again[task.id] = sent
        else:
            # What is known here of the status is newer than what the managers know.
            manager.update(task)

    def _unassign(self, task_id: str) -> None:
        self._again.pop(task_id, None)
        manager = self._managers.get(task_id)
        if manager is not None:
            manager.remove()
            self._reporter.forget(task_id)

    def _begin(self, record: TaskRecord, *, recovered: bool) -> None:
        manager = TaskManager(self, record, recovered=recovered)
        self._managers[record.task.id] = manager
        manager.start()
        for event in self.on_task:
            event.set()

    # What task managers need

    def dependencies_of(self, task: Task) -> Dependencies:
        return self._dependencies.visible_to(task)

    async def wait_dependencies(self, task: Task) -> None:
        """After a restart secrets come with the first assignments; what they lack is the executor's to say."""
        if not self._dependencies.are_complete(task):
            await self._synced.wait()

    def save(self, record: TaskRecord) -> None:
        self._state.save(record)

    async def flush(self) -> None:
        await self._state.flush()

    def report(self, task_id: str, status: TaskStatus) -> None:
        manager = self._managers.get(task_id)
        if manager is not None and not manager.is_removed:
            self._reporter.put(task_id, status)

    def on_closed(self, manager: TaskManager) -> None:
        task_id = manager.task.id
        if self._managers.get(task_id) is not manager:
            return
        del self._managers[task_id]
        self._state.delete(task_id)
        self._changed.set()
        again = self._again.pop(task_id, None)
        if again is not None:
            self._assign(again)

    def nudge(self) -> None:
        """An engine answers again: what waits for a retry need not wait longer."""
        for manager in self._managers.values():
            manager.nudge()

    def matching(self, *, tasks: Iterable[str], services: Iterable[str], all_tasks: bool) -> list[TaskManager]:
        """The task managers that a log selector names."""
        task_ids, service_ids = set(tasks), set(services)
        return [
            manager
            for id, manager in self._managers.items()
            if not manager.is_removed and (all_tasks or id in task_ids or manager.task.service_id in service_ids)
        ]
