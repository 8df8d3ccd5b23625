"""The shape of `swarmctl`: groups that import a command's file when it runs, flags that every command takes, help.

Imports click and nothing slow. What a command does is in the file of its group.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_SOCKET = "/var/run/swarmd.sock"
ALIASES = {"svc": "service", "services": "service", "rm": "remove", "list": "ls"}
OUTPUTS = ("table", "json")


class CliError(click.ClickException):
    """What a user reads in one line; exit code 1."""


@dataclass(slots=True)
class Settings:
    """The flags that every command takes; kept as click's object of the root context."""

    socket: str = DEFAULT_SOCKET
    ca_cert: str = ""
    resolve: bool = True


def is_any_given(given: Mapping[str, Any]) -> bool:
    """Whether the user gave any of these flags: zero, an empty text and a --no-… are given too."""
    return any(value is not None and value != () for value in given.values())


def settings() -> Settings:
    """Of the running command."""
    found = click.get_current_context().find_root().obj
    assert isinstance(found, Settings)
    return found


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    root = context.find_root()
    if root.obj is None:
        root.obj = Settings()
    if value in (None, False, ""):
        return
    if parameter.name == "no_resolve":
        root.obj.resolve = False
    else:
        setattr(root.obj, str(parameter.name), value)


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """Flags that stand before or after the command, as in SwarmKit; in the help of the root only."""
    return [
        click.Option(
            ["--socket", "-s"],
            envvar=None if hidden else "SWARM_SOCKET",
            metavar="PATH",
            help=f"The manager's control socket, else $SWARM_SOCKET, else {DEFAULT_SOCKET}.",
            hidden=hidden,
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["--ca-cert"],
            metavar="FILE",
            type=click.Path(),
            help="Speak TLS to the socket and trust this root, as a socket of SwarmKit's own swarmd needs it.",
            hidden=hidden,
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["--no-resolve", "-n"],
            is_flag=True,
            help="Show ids, don't look up names.",
            hidden=hidden,
            expose_value=False,
            callback=_keep,
        ),
    ]


class Flag(click.Option):
    """An option that stands under `section` in the help."""

    def __init__(self, *args: Any, section: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Named(click.Argument):
    """An object by its name or id, which a shell completes. The argument's name is the kind of object."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from swarmcore.cli.names_of import names_of

        return [CompletionItem(name) for name in names_of(str(self.name), ctx, incomplete)]


def example(*lines: str) -> str:
    """An epilog that click prints as it is."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _explained(ctx: click.Context, error: click.UsageError, word: str) -> click.UsageError:
    from swarmcore.cli.docker_words import explained

    words = explained(ctx.command_path, word)
    return click.UsageError(f"{error.message.rstrip('.')}: {words}", ctx) if words else error


class Command(click.Command):
    """One command. Its help shows flags by section."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options(hidden=True))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with words for those who know other flags."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _explained(ctx, error, error.option_name) from None
        except click.UsageError as error:
            if type(error) is click.UsageError:  # one argument too many
                raise _explained(ctx, error, "") from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # Arguments stand in the usage line; some versions of click would list them once more.
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", ""), []).append(record)
        general = sections.pop("", [])
        for title, records in [*sections.items(), ("Options", general)]:
            with formatter.section(title):
                formatter.write_dl(records)


class Group(click.Group):
    """Commands by name, imported when one runs. `lazy`: name → (module, one line of help).

    `more` adds commands to the group, and is called when one is asked for that is not there.
    """

    command_class = Command

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]] | None = None,
        more: Callable[[click.Group], None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.more = more
        self.lazy = dict(lazy or {})
        if not self.lazy:
            self.params.extend(global_options(hidden=True))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys([*self.lazy, *self.commands]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = super().get_command(ctx, cmd_name)
        if known is not None:
            return known
        if cmd_name in self.lazy:
            module = importlib.import_module(self.lazy[cmd_name][0])
            command = module.command
            assert isinstance(command, click.Command)
            return command
        alias = ALIASES.get(cmd_name)
        return self.get_command(ctx, alias) if alias in self.list_commands(ctx) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            if self.more is not None:
                self.more(self)
                self.more = None
                return self.resolve_command(ctx, args)
            ctx.fail(f"no such command {name!r}{self._hint(ctx, name)}")
        return super().resolve_command(ctx, args)

    def _hint(self, ctx: click.Context, name: str) -> str:
        from swarmcore.cli.docker_words import explained

        if words := explained(ctx.command_path, name):
            return f": {words}"
        commands = self.list_commands(ctx)
        aliases = [alias for alias, command in ALIASES.items() if command in commands]
        near = difflib.get_close_matches(name, [*commands, *aliases], n=1)
        return f": did you mean {ALIASES.get(near[0], near[0])!r}?" if near else ""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = []
        for name in self.list_commands(ctx):
            if name in self.lazy:
                records.append((name, self.lazy[name][1]))
                continue
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                records.append((name, command.get_short_help_str(90)))
        with formatter.section("Commands"):
            formatter.write_dl(records)


F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


def flags(*options: Decorator) -> Callable[[F], F]:
    """Decorate a command with many options, in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


output_option = click.option(
    "--output", "-o", type=click.Choice(OUTPUTS), default="table", show_default=True, help="How to print."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print ids only.")
