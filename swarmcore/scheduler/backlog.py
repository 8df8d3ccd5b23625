"""Tasks that wait for a decision, by group. A group that could not be placed rests until something changes."""

from __future__ import annotations

from itertools import islice

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.scheduling import TaskGroup

GroupKey = tuple[str, int | bytes, bool]
"""Service, version of its spec (or the spec itself where a task has no version), whether the tasks have a node."""


class WaitingGroup:
    """Tasks that are alike: what fits one fits all."""

    __slots__ = ("explained_at", "has_rested", "is_preassigned", "key", "service_id", "spec_version", "tasks")

    def __init__(self, key: GroupKey, task: Task) -> None:
        self.key = key
        self.service_id = task.service_id
        self.spec_version = task.spec_version.index if task.HasField("spec_version") else None
        self.is_preassigned = key[2]
        self.has_rested = False
        """Nothing fitted once, so that it is less urgent than what was never tried."""
        self.explained_at: float | None = None
        """When its tasks were told last why they wait."""
        self.tasks: dict[str, Task] = {}
        """By id, oldest first."""

    def describe(self, labels: dict[str, str] | None) -> TaskGroup:
        """The group as filters see it; `labels` are its service's, the task's own copy of them where it is gone."""
        sample = next(iter(self.tasks.values()))
        return TaskGroup(
            service_id=self.service_id,
            spec_version=self.spec_version,
            spec=sample.spec,
            labels=labels if labels is not None else dict(sample.service_annotations.labels),
            runtime=runtime_of(sample),
            sample=sample,
        )


class Backlog:
    """All groups that wait: `ready` ones are tried in the next round, the others when they are woken."""

    def __init__(self) -> None:
        self._groups: dict[GroupKey, WaitingGroup] = {}
        self._keys: dict[str, GroupKey] = {}
        """By task."""
        self._of_service: dict[str, dict[GroupKey, None]] = {}
        self._ready: dict[GroupKey, None] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._keys

    @property
    def is_ready(self) -> bool:
        """Whether there is a group to be tried."""
        return bool(self._ready)

    @property
    def is_resting(self) -> bool:
        """Whether there is a group that waits for a change."""
        return len(self._ready) < len(self._groups)

    def add(self, task: Task) -> None:
        """A task waits, or a waiting one changed. A changed status alone wakes nobody."""
        id = task.id
        key = key_of(task)
        before = self._keys.get(id)
        if before == key:
            self._groups[key].tasks[id] = task
            return
        if before is not None:
            self.discard(id)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = WaitingGroup(key, task)
            self._of_service.setdefault(group.service_id, {})[key] = None
        group.tasks[id] = task
        self._keys[id] = key
        self._ready[key] = None

    def discard(self, task_id: str) -> None:
        """A task no longer waits."""
        key = self._keys.pop(task_id, None)
        if key is None:
            return
        group = self._groups[key]
        del group.tasks[task_id]
        if not group.tasks:
            self._remove(group)

    def discard_first(self, group: WaitingGroup, count: int) -> None:
        """The oldest `count` tasks of a group no longer wait."""
        for id in list(islice(group.tasks, count)):
            del group.tasks[id]
            del self._keys[id]
        if not group.tasks:
            self._remove(group)

    def _remove(self, group: WaitingGroup) -> None:
        del self._groups[group.key]
        self._ready.pop(group.key, None)
        of_service = self._of_service[group.service_id]
        del of_service[group.key]
        if not of_service:
            del self._of_service[group.service_id]

    def wake_all(self) -> None:
        """Something changed that may help anyone."""
        if self.is_resting:
            self._ready.update(dict.fromkeys(self._groups))

    def wake_service(self, service_id: str) -> None:
        """A service changed."""
        self._ready.update(self._of_service.get(service_id, {}))

    def rest(self, group: WaitingGroup) -> None:
        """The group waits for a change."""
        self._ready.pop(group.key, None)
        group.has_rested = True

    def to_the_end(self, group: WaitingGroup) -> None:
        """The group had its turn in this round and has more to do in the next."""
        if self._ready.pop(group.key, self) is None:
            self._ready[group.key] = None

    def ready(self) -> list[WaitingGroup]:
        """The groups to try now: those with a node first, then what was never tried, each in order of coming."""
        groups = [self._groups[key] for key in self._ready]
        groups.sort(key=lambda group: (not group.is_preassigned, group.has_rested))
        return groups


def key_of(task: Task) -> GroupKey:
    """Tasks of a service and version are one group; those without a version are one where they are identical."""
    if task.HasField("spec_version"):
        return task.service_id, task.spec_version.index, bool(task.node_id)
    parts = Task(spec=task.spec, networks=task.networks, endpoint=task.endpoint, log_driver=task.log_driver)
    return task.service_id, parts.SerializeToString(deterministic=True), bool(task.node_id)


def runtime_of(task: Task) -> str:
    """The runtime that a node must have an executor for."""
    if task.spec.WhichOneof("runtime") == "generic":
        return task.spec.generic.kind
    # Network attachments belong to containers that the engine runs by itself.
    return "container"
