"""What every `ls` prints: a table, ids alone, or JSON; and what every `inspect` begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import click

from swarmcore.cli.text import Page, table, uses_colour


class Listed(Protocol):
    """An object of the control API."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Listed)


def show_list(
    objects: Sequence[T], headers: tuple[str, ...], row: Callable[[T], tuple[str, ...]], *, quiet: bool, output: str
) -> None:
    """`quiet` and `output` are the flags of those names."""
    if quiet:
        click.echo("".join(f"{each.id}\n" for each in objects), nl=False)
    elif output == "json":
        from swarmcore.cli.jsonview import to_json

        click.echo(to_json(objects))
    else:
        click.echo(table(headers, map(row, objects), colour=uses_colour()))


def shown_as_json(found: Any, output: str) -> bool:
    """Print one message as JSON where `--output` asks for that; whether it did."""
    if output != "json":
        return False
    from swarmcore.cli.jsonview import to_json

    click.echo(to_json(found))
    return True


def page_of(found: Any) -> Page:
    """A page with id, name and labels of an object whose spec has annotations."""
    page = Page()
    page.add("ID", found.id)
    page.add("Name", found.spec.annotations.name)
    page.listing("Labels", dict(found.spec.annotations.labels))
    return page
