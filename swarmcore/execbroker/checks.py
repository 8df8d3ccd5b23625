"""What may be asked of which node: read from the store, pure."""

from __future__ import annotations

from collections.abc import Iterable

from swarmcore.api.exec_pb2 import ExecStart, StatsRequest
from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnimplementedError,
)
from swarmcore.store.store import View

EXECUTOR_PLUGIN = "swarmcore/executor"
"""Type of the engine plugins that nodes of ours name; a node without one runs another product's agent."""
MAX_ARGUMENTS = 4_096
MAX_COMMAND_BYTES = 512 * 1024
MAX_WORD_BYTES = 128 * 1024
MAX_SELECTED = 10_000
MAX_WINDOW = 10_000
NOT_SUPPORTED = "not supported by this node"


def check_start(start: ExecStart) -> None:
    """Raise InvalidArgumentError, with the field's name, for what can't be run."""
    if not start.command or not start.command[0]:
        raise InvalidArgumentError("exec.command is empty: name a program")
    words = [*start.command, *start.env, start.dir, start.user]
    if len(start.command) > MAX_ARGUMENTS or len(start.env) > MAX_ARGUMENTS:
        raise InvalidArgumentError(f"exec.command, exec.env: at most {MAX_ARGUMENTS} words are taken")
    if sum(map(len, words)) > MAX_COMMAND_BYTES or max(map(len, words)) > MAX_WORD_BYTES:
        raise InvalidArgumentError("exec: the command and its environment are too long")
    if any("\0" in word for word in words):
        raise InvalidArgumentError("exec: a zero byte stands in the command or its environment")
    for entry in start.env:
        if not entry.partition("=")[0] or "=" not in entry:
            raise InvalidArgumentError(f"exec.env {entry.partition('=')[0]!r}: write it as NAME=VALUE")
    if start.size.rows > MAX_WINDOW or start.size.columns > MAX_WINDOW:
        raise InvalidArgumentError(f"exec.size: at most {MAX_WINDOW} rows and columns")


def running_task(view: View, task_id: str) -> tuple[Task, Node]:
    """A task that a command can run beside, and its node."""
    task = view.task.get(task_id)
    if task is None:
        raise NotFoundError(f"task {task_id} not found")
    if task.status.state != TaskState.RUNNING:
        raise FailedPreconditionError(
            f"task {task_id} is {TaskState.Name(task.status.state)}: commands run beside tasks that are RUNNING"
        )
    node = view.node.get(task.node_id)
    if node is None:
        raise FailedPreconditionError(f"the node of task {task_id} is gone")
    if not is_ours(node):
        raise UnimplementedError(f"{NOT_SUPPORTED}: {name_of(node)} is a stock Docker Engine")
    if node.status.state == NodeStatus.DOWN:
        raise UnavailableError(f"node {name_of(node)} is down")
    return task, node


def is_ours(node: Node) -> bool:
    """Whether an agent of ours runs there."""
    return any(plugin.type == EXECUTOR_PLUGIN for plugin in node.description.engine.plugins)


def name_of(node: Node) -> str:
    """As an operator knows it."""
    return node.spec.annotations.name or node.description.hostname or node.id


def tasks_by_node(view: View, request: StatsRequest) -> dict[str, list[str]]:
    """Ids of the running tasks that are asked for. Raises InvalidArgumentError, NotFoundError."""
    if len(request.task_ids) + len(request.service_ids) > MAX_SELECTED:
        raise InvalidArgumentError(f"stats: at most {MAX_SELECTED} tasks and services can be named")
    found: dict[str, list[str]] = {}
    for task in _selected(view, request):
        if task.status.state == TaskState.RUNNING and task.node_id:
            found.setdefault(task.node_id, []).append(task.id)
    return found


def _selected(view: View, request: StatsRequest) -> Iterable[Task]:
    if not request.task_ids and not request.service_ids:
        return view.task.all()
    tasks = {}
    for id in request.task_ids:
        task = view.task.get(id)
        if task is None:
            raise NotFoundError(f"task {id} not found")
        tasks[id] = task
    for id in request.service_ids:
        tasks.update((task.id, task) for task in view.task.by("service", id))
    return tasks.values()
