"""Tasks: list, inspect, remove (SwarmKit: 2.5)."""

from __future__ import annotations

from collections.abc import Collection

from swarmcore.api.control_pb2 import (
    GetTaskRequest,
    GetTaskResponse,
    ListTasksRequest,
    ListTasksResponse,
    RemoveTaskRequest,
    RemoveTaskResponse,
)
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.controlapi.calls import Calls, not_found
from swarmcore.controlapi.redact import public_task
from swarmcore.controlapi.select import Predicate, by_whole_ids, common_predicates, fill, indexed, matching
from swarmcore.controlapi.validate.bounds import check_id, check_request
from swarmcore.store.transaction import Transaction


def task_name(task: Task) -> str:
    """What a task is called: its own name, else `<service>.<slot or node>.<id>`."""
    return task.annotations.name or f"{task.service_annotations.name}.{task.slot or task.node_id}.{task.id}"


def runtime_of(spec: TaskSpec) -> str:
    """`container`, `attachment`, the kind of a generic runtime in lower case, or an empty string."""
    runtime = spec.WhichOneof("runtime")
    return spec.generic.kind.lower() if runtime == "generic" else runtime or ""


class TaskCalls(Calls):
    async def GetTask(self, request: GetTaskRequest, context: object) -> GetTaskResponse:
        task = self.store.view.task.get(check_id(request.task_id, "task_id"))
        if task is None:
            raise not_found("task", request.task_id)
        return GetTaskResponse(task=public_task(task))

    async def ListTasks(self, request: ListTasksRequest, context: object) -> ListTasksResponse:
        check_request(request)
        tasks = await matching(self._task_candidates(request.filters), self._task_predicates(request.filters))
        response = ListTasksResponse()
        await fill(response.tasks, tasks, public_task)
        return response

    def _task_candidates(self, filters: ListTasksRequest.Filters) -> Collection[Task]:
        table = self.store.view.task
        if filters.service_ids:
            return indexed(table, "service", filters.service_ids)
        if filters.node_ids:
            return indexed(table, "node", filters.node_ids)
        return by_whole_ids(table, filters.id_prefixes) or table.all()

    def _task_predicates(self, filters: ListTasksRequest.Filters) -> list[Predicate]:
        # A task's own labels are empty; what people filter by are those of its service.
        predicates = common_predicates(filters, task_name, lambda task: task.service_annotations.labels)
        if filters.service_ids:
            services = frozenset(filters.service_ids)
            predicates.append(lambda task: task.service_id in services)
        if filters.node_ids:
            nodes = frozenset(filters.node_ids)
            predicates.append(lambda task: task.node_id in nodes)
        if filters.desired_states:
            states = frozenset(filters.desired_states)
            predicates.append(lambda task: task.desired_state in states)
        if filters.runtimes:
            runtimes = frozenset(filters.runtimes)
            predicates.append(lambda task: runtime_of(task.spec) in runtimes)
        if filters.up_to_date:
            predicates.append(self._is_up_to_date)
        return predicates

    def _is_up_to_date(self, task: Task) -> bool:
        view = self.store.view
        service = view.service.get(task.service_id)
        return service is not None and not self.is_dirty(service, task, view.node.get(task.node_id))

    async def RemoveTask(self, request: RemoveTaskRequest, context: object) -> RemoveTaskResponse:
        task_id = check_id(request.task_id, "task_id")

        def write(tx: Transaction) -> None:
            if tx.task.get(task_id) is None:
                raise not_found("task", task_id)
            tx.task.delete(task_id)

        await self.store.update(write)
        return RemoveTaskResponse()
