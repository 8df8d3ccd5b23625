"""The flags of `service logs` and `task logs`, as Docker names them. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Callable

import click

from swarmcore.cli.command_line import F, flags


def log_flags() -> Callable[[F], F]:
    """The flags of both commands, as Docker names them."""
    return flags(
        click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on."),
        click.option("--tail", metavar="N", default="all", show_default=True, help="The last N lines of each task."),
        click.option("--since", metavar="TIME", help="Lines since then: 10m, 1h30m, or 2026-01-31T12:00:00Z."),
        click.option("--timestamps", "-t", is_flag=True, help="Show when each line was written."),
        click.option("--raw", is_flag=True, help="What was written and nothing else."),
        click.option("--details", is_flag=True, help="Show what the engine's log driver adds, such as labels."),
        click.option("--no-task-ids", is_flag=True, help="Name tasks without their ids."),
        click.option("--no-trunc", is_flag=True, help="Show ids in full."),
    )
