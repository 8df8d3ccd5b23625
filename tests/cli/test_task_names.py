"""What a user may type for a task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.cli.command_line import CliError
from swarmcore.cli.connection import CallError, Manager
from swarmcore.cli.lookup import find_task

FIRST, SECOND, OLD, GLOBAL = "aaa1" + "x" * 21, "aab2" + "x" * 21, "ccc3" + "x" * 21, "ddd4" + "x" * 21


class Store:
    """Stands for a manager: answers as its control API does."""

    resolve = True

    def __init__(self) -> None:
        names = "GetTask ListTasks GetService ListServices GetNode"
        self.control = SimpleNamespace(**{name: name for name in names.split()})
        self._services = {"s1": "web", "s2": "my.agent"}
        self._tasks = [_task(FIRST, "s1", 1), _task(SECOND, "s1", 2), _task(OLD, "s1", 1), _task(GLOBAL, "s2", 0)]
        self._tasks[2].desired_state = TaskState.SHUTDOWN

    def call(self, method: str, request: Any) -> Any:
        return getattr(self, method)(request)

    def GetTask(self, request: pb.GetTaskRequest) -> pb.GetTaskResponse:
        for task in self._tasks:
            if task.id == request.task_id:
                return pb.GetTaskResponse(task=task)
        raise CallError("not found", grpc.StatusCode.NOT_FOUND)

    def ListTasks(self, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        prefixes, services = tuple(request.filters.id_prefixes), list(request.filters.service_ids)
        return pb.ListTasksResponse(
            tasks=[
                task
                for task in self._tasks
                if (not prefixes or task.id.startswith(prefixes)) and (not services or task.service_id in services)
            ]
        )

    def GetService(self, request: pb.GetServiceRequest) -> pb.GetServiceResponse:
        raise CallError("not found", grpc.StatusCode.NOT_FOUND)

    def ListServices(self, request: pb.ListServicesRequest) -> pb.ListServicesResponse:
        return pb.ListServicesResponse(
            services=[Service(id=id) for id, name in self._services.items() if name in request.filters.names]
        )

    def GetNode(self, request: pb.GetNodeRequest) -> pb.GetNodeResponse:
        node = Node(id=request.node_id)
        node.description.hostname = f"host-{request.node_id}"
        return pb.GetNodeResponse(node=node)


def _task(id: str, service: str, slot: int) -> Task:
    return Task(id=id, service_id=service, slot=slot, node_id="n", desired_state=TaskState.RUNNING)


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        (FIRST, FIRST),
        ("aaa", FIRST),
        ("ccc3", OLD),
        ("web.2", SECOND),
        ("web.1", FIRST),
        (f"web.1.{OLD[:12]}", OLD),
        (f"web.2.{SECOND[:12]}@host-n", SECOND),
        ("my.agent.host-n", GLOBAL),
        (f"my.agent.host-n.{GLOBAL[:12]}", GLOBAL),
    ],
)
def test_a_task_is_found_by_what_logs_and_tables_call_it(typed: str, id: str) -> None:
    assert find_task(cast(Manager, Store()), typed).id == id


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("aa", "task aa is ambiguous (2 matches found): use the id"),
        ("zz", "task zz not found: `swarmctl task ls -a` lists what there is"),
        ("web.3", "task web.3 not found"),
        ("web.1.bbb", "task web.1.bbb not found"),
        ("nosuch.1", "task nosuch.1 not found"),
        ("..", "task .. not found"),
    ],
)
def test_what_names_no_task_or_several_is_refused(typed: str, complaint: str) -> None:
    with pytest.raises(CliError) as refused:
        find_task(cast(Manager, Store()), typed)

    assert refused.value.message.startswith(complaint)
