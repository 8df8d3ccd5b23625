"""`swarmctl`: ask and tell a manager, through its control socket."""

from __future__ import annotations

import io
import os
import sys

import click

from swarmcore.cli.command_line import Command, Group, Settings, example, global_options
from swarmcore.cli.words import shortened, wrong_word

COMMANDS = {
    "node": ("swarmcore.cli.node", "List, inspect and manage nodes."),
    "service": ("swarmcore.cli.service", "Create, inspect, update and remove services; show their logs."),
    "task": (
        "swarmcore.cli.task",
        "List, inspect and remove tasks; look into them.",
    ),
    "secret": ("swarmcore.cli.secret", "Create, inspect and remove secrets."),
    "config": ("swarmcore.cli.config", "Create, inspect and remove configs."),
    "network": ("swarmcore.cli.network", "Create, inspect and remove networks."),
    "cluster": ("swarmcore.cli.cluster", "Inspect and change the cluster, its tokens and its keys."),
    "raft": ("swarmcore.cli.raft", "Look into a manager's state directory, offline."),
    "plugins": ("swarmcore.cli.plugins", "Show the manager's plugins and what became of them."),
    "completion": ("swarmcore.cli.completion", "Print a script that completes commands in your shell."),
}


def add_plugin_commands(group: click.Group) -> None:
    """Ask the plugins that are installed here for commands; those that fail are named on stderr."""
    import logging

    from swarmcore.plugin import loader

    logging.basicConfig(format="Warning: %(message)s", level=logging.WARNING)
    for failure in loader.load(role="manager", log=lambda _: None).extend_cli(group):
        print(f"Warning: {failure}", file=sys.stderr)


@click.group(
    cls=Group,
    lazy=COMMANDS,
    more=add_plugin_commands,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
    params=global_options(hidden=False),
    epilog=example(
        "swarmctl node ls",
        "swarmctl service create --name redis --image redis:3.0.5 --replicas 6 --wait",
        "swarmctl service update redis --image redis:3.0.6 --update-parallelism 2",
        "swarmctl cluster inspect        # join tokens, ready to paste",
    ),
)
@click.pass_context
def command(context: click.Context) -> None:
    """Control a swarm through one of its managers."""
    if context.obj is None:
        context.obj = Settings()


@command.command(cls=Command, name="version")
def version() -> None:
    """Print the version."""
    from swarmcore.cli.version import version_line

    click.echo(version_line("swarmctl"))


def main() -> None:
    """The console script: one line on stderr for what goes wrong, exit code 1; 2 for wrong usage."""
    # gRPC's core logs to stderr by itself; what matters of it arrives as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that can't show a letter is no reason to fail
    if wrong := wrong_word(sys.argv[1:]):
        print(f"Error: {wrong}", file=sys.stderr)
        raise SystemExit(2)
    try:
        code = command.main(prog_name="swarmctl", standalone_mode=False)
    except click.UsageError as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            click.echo(error.format_message())
            raise SystemExit(2) from None
        path = error.ctx.command_path if error.ctx is not None else "swarmctl"
        text = shortened(error.format_message())
        print(f"Error: {text.rstrip('.')} (see `{path} --help`)", file=sys.stderr)
        raise SystemExit(2) from None
    except click.ClickException as error:
        print(f"Error: {shortened(error.format_message())}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of a pipe left, as `head` does: no error, and nothing more to write at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(1) from None
    except OSError as error:
        what = f"{error.filename!r}: " if error.filename is not None else ""
        print(f"Error: {shortened(what + (error.strerror or str(error)))}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
