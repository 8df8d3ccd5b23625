"""`swarmctl secret`: create, list, inspect and remove secrets."""

from __future__ import annotations

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.specs_pb2 import SecretSpec
from swarmcore.cli.command_line import Group, Named, example, output_option, quiet_option
from swarmcore.cli.connection import manager
from swarmcore.cli.listing import page_of, show_list, shown_as_json
from swarmcore.cli.lookup import find_secret
from swarmcore.cli.text import ago, moment


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """Create, inspect and remove secrets."""


@command.command(
    name="create",
    epilog=example("swarmctl secret create password -f password.txt", "pwgen 40 1 | swarmctl secret create password"),
)
@click.argument("name")
@click.option("--file", "-f", type=click.Path(), help="Read it from a file; from standard input where not given.")
@click.option("--driver", "-d", default="", help="A driver that gets the value, in place of data.")
def create(name: str, file: str | None, driver: str) -> None:
    """Create a secret and print its id. The swarm never shows its data again."""
    from swarmcore.cli.payloads import read_payload

    to = manager()
    spec = SecretSpec()
    spec.annotations.name = name
    if driver:
        spec.driver.name = driver
    if file is not None or not driver:
        spec.data = read_payload("secret", file)
    click.echo(to.call(to.control.CreateSecret, pb.CreateSecretRequest(spec=spec)).secret.id)


@command.command(name="ls")
@quiet_option
@output_option
def ls(quiet: bool, output: str) -> None:
    """List secrets, the newest first."""
    to = manager()
    secrets = sorted(
        to.call(to.control.ListSecrets, pb.ListSecretsRequest()).secrets,
        key=lambda secret: (-secret.meta.created_at.ToNanoseconds(), secret.id),
    )
    show_list(
        secrets,
        ("ID", "Name", "Driver", "Created"),
        lambda each: (each.id, each.spec.annotations.name, each.spec.driver.name, ago(each.meta.created_at)),
        quiet=quiet,
        output=output,
    )


@command.command(name="inspect")
@click.argument("secret", cls=Named)
@output_option
def inspect(secret: str, output: str) -> None:
    """Show a secret, without its data."""
    found = find_secret(manager(), secret)
    if shown_as_json(found, output):
        return
    page = page_of(found)
    page.add("Driver", found.spec.driver.name)
    page.add("Created", moment(found.meta.created_at))
    click.echo(str(page))


@command.command(name="remove")
@click.argument("secret", cls=Named)
def remove(secret: str) -> None:
    """Remove a secret that no service uses."""
    to = manager()
    found = find_secret(to, secret)
    to.call(to.control.RemoveSecret, pb.RemoveSecretRequest(secret_id=found.id))
    click.echo(found.id)
