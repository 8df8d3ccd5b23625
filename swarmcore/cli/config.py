"""`swarmctl config`: create, list, inspect and remove configs."""

from __future__ import annotations

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.specs_pb2 import ConfigSpec
from swarmcore.cli.command_line import Group, Named, example, output_option, quiet_option
from swarmcore.cli.connection import manager
from swarmcore.cli.listing import page_of, show_list, shown_as_json
from swarmcore.cli.lookup import find_config
from swarmcore.cli.text import ago, moment


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """Create, inspect and remove configs."""


@command.command(
    name="create",
    epilog=example(
        "swarmctl config create nginx.conf -f nginx.conf", "make-config | swarmctl config create nginx.conf"
    ),
)
@click.argument("name")
@click.option("--file", "-f", type=click.Path(), help="Read it from a file; from standard input where not given.")
def create(name: str, file: str | None) -> None:
    """Create a config and print its id."""
    from swarmcore.cli.payloads import read_payload

    to = manager()
    spec = ConfigSpec(data=read_payload("config", file))
    spec.annotations.name = name
    click.echo(to.call(to.control.CreateConfig, pb.CreateConfigRequest(spec=spec)).config.id)


@command.command(name="ls")
@quiet_option
@output_option
def ls(quiet: bool, output: str) -> None:
    """List configs, the newest first."""
    to = manager()
    configs = sorted(
        to.call(to.control.ListConfigs, pb.ListConfigsRequest()).configs,
        key=lambda config: (-config.meta.created_at.ToNanoseconds(), config.id),
    )
    show_list(
        configs,
        ("ID", "Name", "Created"),
        lambda each: (each.id, each.spec.annotations.name, ago(each.meta.created_at)),
        quiet=quiet,
        output=output,
    )


@command.command(name="inspect")
@click.argument("config", cls=Named)
@output_option
def inspect(config: str, output: str) -> None:
    """Show a config and what it holds."""
    found = find_config(manager(), config)
    if shown_as_json(found, output):
        return
    page = page_of(found)
    page.add("Created", moment(found.meta.created_at))
    page.add("Payload", f"{len(found.spec.data)} bytes")
    click.echo(f"{page}\n")
    click.echo(_printable(found.spec.data))


def _printable(data: bytes) -> str:
    """The data as text, with what a terminal would act on replaced."""
    text = data.decode(errors="replace").rstrip("\n")
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


@command.command(name="remove")
@click.argument("config", cls=Named)
def remove(config: str) -> None:
    """Remove a config that no service uses."""
    to = manager()
    found = find_config(to, config)
    to.call(to.control.RemoveConfig, pb.RemoveConfigRequest(config_id=found.id))
    click.echo(found.id)
