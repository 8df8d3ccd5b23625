"""`swarmctl completion`: scripts that complete commands and flags in bash, zsh and fish."""

from __future__ import annotations

import click

from swarmcore.cli.command_line import Command, example

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    name="completion",
    epilog=example(
        "swarmctl completion bash > /etc/bash_completion.d/swarmctl",
        'swarmctl completion zsh > "${fpath[1]}/_swarmctl"',
        "swarmctl completion fish > ~/.config/fish/completions/swarmctl.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands in your shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    completer = kind(context.find_root().command, {}, "swarmctl", "_SWARMCTL_COMPLETE")
    # Not `source()`: for bash that runs the shell that is installed here to ask for its version.
    click.echo(completer.source_template % completer.source_vars())
