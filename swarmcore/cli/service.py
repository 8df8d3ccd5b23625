"""`swarmctl service`: create, list, inspect, update and remove services."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.specs_pb2 import ServiceSpec
from swarmcore.cli.command_line import (
    CliError,
    F,
    Flag,
    Group,
    Named,
    example,
    is_any_given,
    output_option,
    quiet_option,
)
from swarmcore.cli.connection import Manager, manager, with_fresh_read
from swarmcore.cli.log_flags import log_flags
from swarmcore.cli.lookup import find_service
from swarmcore.cli.service_flags import service_flags

if TYPE_CHECKING:
    from swarmcore.api.objects_pb2 import Service

LIST_CHUNK = 1000

wait_option = click.option(
    "--wait", is_flag=True, help="Show progress until the service runs as asked; exit 1 where that fails."
)


def _attach_flag(name: str, help: str) -> Callable[[F], F]:
    return click.option(name, cls=Flag, section="Files and ports", multiple=True, metavar="NAME[:TARGET]", help=help)


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """Create, inspect, update and remove services; show their logs."""


@command.command(
    name="create",
    epilog=example(
        "swarmctl service create --name redis --image redis:3.0.5",
        "swarmctl service create --name web --image nginx --replicas 6 --ports http:80:8080 \\",
        "    --constraint node.labels.disk==ssd --memory-limit 512m --wait",
        "swarmctl service create --name agent --image agent:2 --mode global",
        "swarmctl service create --name import --image import:1 --mode replicated-job --completions 10 \\",
        "    --max-concurrent 2 --wait",
        "swarmctl service create --name tick --runtime process --command sleep --args 1000",
    ),
)
@click.option(
    "--mode",
    cls=Flag,
    section="Service",
    type=click.Choice(["replicated", "global", "replicated-job", "global-job"]),
    default="replicated",
    show_default=True,
    help="So many replicas, or one task on each node; a job's tasks run until they are complete.",
)
@click.option(
    "--runtime",
    cls=Flag,
    section="What runs",
    type=click.Choice(["container", "process"]),
    default="container",
    show_default=True,
    help="A container, or a plain process on nodes with the process executor.",
)
@service_flags()
@_attach_flag(
    "--secret",
    "A secret to give to the tasks as a file; also source=NAME,target=PATH,uid=0,gid=0,mode=0400. Repeatable.",
)
@_attach_flag(
    "--config",
    "A config to give to the tasks as a file; also source=NAME,target=PATH,uid=0,gid=0,mode=0400. Repeatable.",
)
@wait_option
def create(mode: str, runtime: str, wait: bool, **given: Any) -> None:
    """Create a service and print its id."""
    from swarmcore.cli import service_edit

    if not given["name"]:
        raise click.UsageError("--name is missing: give the service a name", click.get_current_context())
    if runtime == "container" and not given["image"]:
        raise click.UsageError("--image is missing: name the image to run", click.get_current_context())
    to = manager()
    spec = service_edit.new_spec(to, mode, runtime, given)
    service = to.call(to.control.CreateService, pb.CreateServiceRequest(spec=spec)).service
    click.echo(service.id)
    _maybe_wait(to, service, wait)


@command.command(
    name="update",
    epilog=example(
        "swarmctl service update redis --replicas 6",
        "swarmctl service update redis --image redis:3.0.7 --update-parallelism 3 --update-delay 20s --wait",
        "swarmctl service update redis --rollback",
        "swarmctl service update redis --force      # replace every task",
    ),
)
@click.argument("service", cls=Named)
@service_flags()
@_attach_flag("--add-secret", "Give the tasks one more secret. Repeatable.")
@click.option("--rm-secret", cls=Flag, section="Files and ports", multiple=True, metavar="NAME", help="Take one away.")
@_attach_flag("--add-config", "Give the tasks one more config. Repeatable.")
@click.option("--rm-config", cls=Flag, section="Files and ports", multiple=True, metavar="NAME", help="Take one away.")
@click.option(
    "--add-capability", cls=Flag, section="What runs", multiple=True, metavar="CAP", help="Like CAP_NET_ADMIN."
)
@click.option("--rm-capability", cls=Flag, section="What runs", multiple=True, metavar="CAP", help="Drop one.")
@click.option("--force", cls=Flag, section="Service", is_flag=True, help="Replace the tasks though nothing changed.")
@click.option("--rollback", cls=Flag, section="Service", is_flag=True, help="Go back to the spec before the last one.")
@wait_option
def update(service: str, wait: bool, force: bool, rollback: bool, **given: Any) -> None:
    """Change a service and print its id.

    Flags that are not given change nothing; one that is repeatable replaces its whole list.
    """
    from swarmcore.cli import service_edit

    to = manager()

    def once() -> Service:
        found = find_service(to, service)
        request = pb.UpdateServiceRequest(service_id=found.id, service_version=found.meta.version, spec=found.spec)
        if rollback:
            request.rollback = pb.UpdateServiceRequest.PREVIOUS
        else:
            service_edit.edit_spec(to, request.spec, given, force=force)
            if request.spec == found.spec:
                raise CliError("no changes detected: give a flag that changes something, or --force")
        return to.call(to.control.UpdateService, request).service

    if rollback and (force or is_any_given(given)):
        raise click.UsageError("--rollback goes alone: it takes the whole spec back", click.get_current_context())
    changed = with_fresh_read(once)
    click.echo(changed.id)
    _maybe_wait(to, changed, wait)


def _maybe_wait(to: Manager, service: Service, wait: bool) -> None:
    if wait:
        from swarmcore.cli.wait import wait_until_converged

        wait_until_converged(to, service)


def replicas(spec: ServiceSpec, running: int) -> str:
    """`running/wanted`; `global` for a global service; empty for jobs."""
    mode = spec.WhichOneof("mode")
    if mode == "replicated":
        return f"{running}/{spec.replicated.replicas}"
    return "global" if mode == "global" else ""


def running_tasks(to: Manager, ids: list[str]) -> dict[str, int]:
    """How many tasks of each service run, on nodes that are not down."""
    counts: dict[str, int] = {}
    for start in range(0, len(ids), LIST_CHUNK):
        request = pb.ListServiceStatusesRequest(services=ids[start : start + LIST_CHUNK])
        for status in to.call(to.control.ListServiceStatuses, request).statuses:
            counts[status.service_id] = status.running_tasks
    return counts


@command.command(name="ls")
@quiet_option
@output_option
def ls(quiet: bool, output: str) -> None:
    """List services."""
    to = manager()
    services = sorted(
        to.call(to.control.ListServices, pb.ListServicesRequest()).services,
        key=lambda service: (service.spec.annotations.name, service.id),
    )
    if quiet:
        click.echo("".join(f"{service.id}\n" for service in services), nl=False)
        return
    counts = running_tasks(to, [service.id for service in services])
    if output == "json":
        from swarmcore.cli.jsonview import plain, to_json

        click.echo(to_json([{**plain(each), "running_tasks": counts.get(each.id, 0)} for each in services]))
        return
    from swarmcore.cli.task_table import what_runs
    from swarmcore.cli.text import table, uses_colour

    rows = [
        (each.id, each.spec.annotations.name, what_runs(each.spec.task), replicas(each.spec, counts.get(each.id, 0)))
        for each in services
    ]
    click.echo(table(("ID", "Name", "Image", "Replicas"), rows, colour=uses_colour()))


@command.command(
    name="inspect", epilog=example("swarmctl service inspect redis", "swarmctl service inspect redis -a -o json")
)
@click.argument("service", cls=Named)
@click.option("--all", "-a", "every", is_flag=True, help="Show tasks that have ended, too.")
@output_option
def inspect(service: str, every: bool, output: str) -> None:
    """Show a service, how far its update is, and its tasks."""
    from swarmcore.cli.service_page import show

    to = manager()
    show(to, find_service(to, service), every=every, as_json=output == "json")


@command.command(name="remove")
@click.argument("service", cls=Named, nargs=-1, required=True)
def remove(service: tuple[str, ...]) -> None:
    """Remove services, and with them their tasks."""
    to = manager()
    failures = []
    for name in service:
        try:
            found = find_service(to, name)
            to.call(to.control.RemoveService, pb.RemoveServiceRequest(service_id=found.id))
        except CliError as error:
            if len(service) == 1:
                raise
            failures.append(error.message)
        else:
            click.echo(name)
    if failures:
        raise CliError("; ".join(failures))


@command.command(
    name="logs",
    epilog=example(
        "swarmctl service logs web --tail 100",
        "swarmctl service logs -f --timestamps web api",
        "swarmctl service logs web --since 10m --raw 2>errors >lines",
    ),
)
@click.argument("service", cls=Named, nargs=-1, required=True)
@log_flags()
def logs(service: tuple[str, ...], **given: Any) -> None:
    """Show what the tasks of services print, wherever they run."""
    from swarmcore.cli.logs import show_logs

    show_logs(manager(), services=service, **given)
