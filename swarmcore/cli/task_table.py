"""Tables of tasks, as the inspect pages of nodes, services and tasks end with one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.cli.lookup import Names
from swarmcore.cli.text import ago, enum_name, table, uses_colour

if TYPE_CHECKING:
    from swarmcore.api.process_pb2 import ProcessSpec

COMMAND_WIDTH = 24
HEADERS = ("Task ID", "Service", "Slot", "Image", "Desired State", "Last State", "Node")


def state_name(state: int) -> str:
    return enum_name(TaskState, state)


def runs(task: Task) -> bool:
    """Wanted to run, or to run to its end as the tasks of jobs; what the tables show without --all."""
    return task.desired_state <= TaskState.COMPLETE


def what_runs(spec: TaskSpec) -> str:
    """The image, the command line of a process, or the kind of another runtime."""
    runtime = spec.WhichOneof("runtime")
    if runtime == "container":
        return spec.container.image
    if runtime != "generic":
        return f"({runtime or 'none'})"
    process = process_of(spec)
    if process is None:
        return f"({spec.generic.kind})"
    line = command_line([*process.command, *process.args])
    return line if len(line) <= COMMAND_WIDTH else f"{line[: COMMAND_WIDTH - 1]}…"


def process_of(spec: TaskSpec) -> ProcessSpec | None:
    """What a task of plain processes runs; None for any other, and for a payload that can't be read."""
    if not spec.generic.payload.type_url.endswith("swarmcore.v1.ProcessSpec"):
        return None
    from google.protobuf.message import DecodeError

    from swarmcore.api.process_pb2 import ProcessSpec

    process = ProcessSpec()
    try:
        spec.generic.payload.Unpack(process)
    except DecodeError:
        return None
    return process


def command_line(words: Iterable[str]) -> str:
    """The words as a shell would take them."""
    from shlex import quote

    return " ".join(quote(word) for word in words)


def last_state(task: Task) -> str:
    """`RUNNING About an hour ago`."""
    return f"{state_name(task.status.state)} {ago(task.status.timestamp)}".rstrip()


def last_failure(tasks: Iterable[Task]) -> Task | None:
    """The one of those that have ended with an error that did so last."""
    failed = [task for task in tasks if task.status.err and not runs(task)]
    return max(failed, key=lambda task: task.status.timestamp.ToNanoseconds(), default=None)


def problem(task: Task, names: Names) -> str:
    """What went wrong with a task, or keeps it waiting."""
    if not task.status.err and runs(task) and names.is_held(task.node_id):
        return "held: its node went down with many others (`swarmctl cluster inspect`)"
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
        rows.append((task.id, service, slot, what_runs(task.spec), state, last_state(task), node, problem(task, names)))
    return with_errors(HEADERS, rows)


def with_errors(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table whose last cell is an error: the column stands there only where one is."""
    if any(row[-1] for row in rows):
        return table((*headers, "Error"), rows, colour=uses_colour())
    return table(headers, [row[:-1] for row in rows], colour=uses_colour())
