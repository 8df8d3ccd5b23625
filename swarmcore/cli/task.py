"""`swarmctl task`: list, inspect and remove tasks."""

from __future__ import annotations

from typing import Any

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.cli.command_line import Group, Named, example, output_option, quiet_option
from swarmcore.cli.connection import manager
from swarmcore.cli.log_flags import log_flags
from swarmcore.cli.lookup import Names, find_task
from swarmcore.cli.task_table import in_order, last_state, problem, runs, state_name, with_errors

HEADERS = ("ID", "Service", "Desired State", "Last State", "Node")


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """List, inspect and remove tasks; show their logs."""


@command.command(name="ls")
@click.option("--all", "-a", "every", is_flag=True, help="List tasks that have ended, too.")
@quiet_option
@output_option
def ls(every: bool, quiet: bool, output: str) -> None:
    """List tasks."""
    to = manager()
    tasks = [task for task in to.call(to.control.ListTasks, pb.ListTasksRequest()).tasks if every or runs(task)]
    tasks = in_order(tasks)
    if quiet:
        click.echo("".join(f"{task.id}\n" for task in tasks), nl=False)
    elif output == "json":
        from swarmcore.cli.jsonview import to_json

        click.echo(to_json(tasks))
    else:
        names = Names(to)
        if tasks:
            names.load_services()
            names.load_nodes()
        rows = [
            (
                task.id,
                names.task(task),
                state_name(task.desired_state),
                last_state(task),
                names.node(task.node_id),
                problem(task, names),
            )
            for task in tasks
        ]
        click.echo(with_errors(HEADERS, sorted(rows, key=_by_service)))


def _by_service(row: tuple[str, ...]) -> tuple[str, int, str]:
    service, _, slot = row[1].rpartition(".")
    return service, int(slot) if slot.isascii() and slot.isdigit() else 0, slot


@command.command(name="inspect")
@click.argument("task", cls=Named)
@output_option
def inspect(task: str, output: str) -> None:
    """Show a task, what went wrong with it, and the tasks before it."""
    from swarmcore.cli.task_page import show

    to = manager()
    show(to, find_task(to, task), as_json=output == "json")


@command.command(name="remove")
@click.argument("task", cls=Named)
def remove(task: str) -> None:
    """Remove a task's record; a service that needs it gets another task."""
    to = manager()
    found = find_task(to, task)
    to.call(to.control.RemoveTask, pb.RemoveTaskRequest(task_id=found.id))
    click.echo(found.id)


@command.command(name="logs", epilog=example("swarmctl task logs -f --tail 20 0zxyg3o7mtpk8i5jlfhdw6qcs"))
@click.argument("task", cls=Named, nargs=-1, required=True)
@log_flags()
def logs(task: tuple[str, ...], **given: Any) -> None:
    """Show what tasks print, wherever they run."""
    from swarmcore.cli.logs import show_logs

    show_logs(manager(), tasks=task, **given)
