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
    """List, inspect and remove tasks; look into them."""


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


@command.command(
    name="exec",
    short_help="Run a command beside a task, on whatever node it is.",
    epilog=example(
        "swarmctl task exec 0zxyg3o7mtpk8i5jlfhdw6qcs -- ps aux",
        "swarmctl task exec 0zxyg3o7mtpk8i5jlfhdw6qcs -it -- sh",
        "swarmctl task exec 0zxyg3o7mtpk8i5jlfhdw6qcs -i -- sh -c 'cat >settings' <settings",
    ),
)
@click.argument("task", cls=Named)
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARG]...")
@click.option("--interactive", "-i", "with_input", is_flag=True, help="Give it this command's standard input.")
@click.option("--tty", "-t", "with_terminal", is_flag=True, help="Give it a terminal.")
@click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="Set a variable for it. Repeatable.")
@click.option("--workdir", "-w", "directory", default="", metavar="DIR", help="Run it there. [default: the task's]")
@click.option("--user", "-u", default="", metavar="USER", help="Run it as that user. [default: the task's]")
def exec_(task: str, words: tuple[str, ...], env: tuple[str, ...], **given: Any) -> None:
    """Run a command beside a task that runs, on whatever node; exit as it does, 125 where it can't be run.

    The command is killed when this one ends. Who ran what is written to the audit log of the leading manager.
    """
    from swarmcore.cli import exec as command_beside

    to = manager()
    code = command_beside.run(to, find_task(to, task).id, words, env=env, **given)
    click.get_current_context().exit(code)


@command.command(name="stats", epilog=example("swarmctl task stats", "swarmctl task stats --service web --no-stream"))
@click.argument("task", cls=Named, nargs=-1)
@click.option("--service", multiple=True, metavar="SERVICE", help="All tasks of a service that run. Repeatable.")
@click.option("--no-stream", is_flag=True, help="Print one table and end; so it is where stdout is no terminal.")
@click.option("--no-trunc", is_flag=True, help="Show ids in full.")
@output_option
def stats(task: tuple[str, ...], service: tuple[str, ...], no_stream: bool, no_trunc: bool, output: str) -> None:
    """Show what tasks use: all that run, or those that are named."""
    from swarmcore.cli.stats import show_stats

    show_stats(manager(), tasks=task, services=service, once=no_stream, truncate=not no_trunc, output=output)
