"""Tables of tasks, as the inspect pages of nodes, services and tasks end with one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.cli.lookup import Names
from swarmcore.cli.text import ago, enum_name, table, uses_colour

HEADERS = ("Task ID", "Service", "Slot", "Image", "Desired State", "Last State", "Node")


def state_name(state: int) -> str:
    return enum_name(TaskState, state)


def runs(task: Task) -> bool:
    """Wanted to run; what the tables show without --all."""
    return task.desired_state <= TaskState.RUNNING


def what_runs(task: Task) -> str:
    """The image, or the kind of another runtime."""
    runtime = task.spec.WhichOneof("runtime")
    if runtime == "container":
        return task.spec.container.image
    return f"({task.spec.generic.kind})" if runtime == "generic" else f"({runtime or 'none'})"


def last_state(task: Task) -> str:
    """`RUNNING About an hour ago`."""
    return f"{state_name(task.status.state)} {ago(task.status.timestamp)}".rstrip()


def problem(task: Task) -> str:
    """What went wrong with a task, or keeps it waiting."""
    return task.status.err


def in_order(tasks: Iterable[Task]) -> list[Task]:
    """By service, slot or node, newest first."""
    return sorted(
        tasks,
        key=lambda task: (
            task.service_id,
            task.slot,
            task.node_id if not task.slot else "",
            -task.meta.created_at.ToNanoseconds(),
            task.id,
        ),
    )


def task_table(tasks: Iterable[Task], names: Names) -> str:
    """All columns of the session; `Error` where a task has one."""
    rows = []
    for task in in_order(tasks):
        slot = str(task.slot) if task.slot else ""
        service = names.service(task.service_id)
        state = state_name(task.desired_state)
        node = names.node(task.node_id)
        rows.append((task.id, service, slot, what_runs(task), state, last_state(task), node, problem(task)))
    return with_errors(HEADERS, rows)


def with_errors(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table whose last cell is an error: the column stands there only where one is."""
    if any(row[-1] for row in rows):
        return table((*headers, "Error"), rows, colour=uses_colour())
    return table(headers, [row[:-1] for row in rows], colour=uses_colour())
