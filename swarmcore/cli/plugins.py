"""`swarmctl plugins`: the plugins of the manager that answers, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import click

from swarmcore.api.plugins_pb2 import ListPluginsRequest, ListPluginsResponse, Plugin
from swarmcore.cli.command_line import CliError, Group, Named, example, output_option
from swarmcore.cli.connection import manager
from swarmcore.cli.listing import shown_as_json
from swarmcore.cli.text import Page, enum_name, table, uses_colour

HEADERS = ("NAME", "STATE", "VERSION", "PROVIDES", "ORDER", "CALLS", "P99", "NOTE")


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog=example(
        "swarmctl plugins",
        "swarmctl plugins --hooks",
        "swarmctl plugins inspect constraint-filter",
        "swarmctl plugins lock > /var/lib/swarmd/plugins.lock",
    ),
)
@click.option("--hooks", is_flag=True, help="Show which hooks each plugin implements.")
@output_option
@click.pass_context
def command(context: click.Context, hooks: bool, output: str) -> None:
    """Show the manager's plugins and what became of them.

    Plugins are code that runs with the manager's rights. Each manager has its own; this asks the one behind the socket.
    """
    if context.invoked_subcommand is not None:
        return
    report = _report()
    if output == "json":
        from swarmcore.cli.jsonview import to_json

        click.echo(to_json(report))
        return
    click.echo(headline(report, _is_leader(report.node_id)))
    plugins = sorted(report.plugins, key=lambda plugin: plugin.name)
    if hooks:
        rows = [(plugin.name, state_word(plugin), " ".join(plugin.hooks) or "-") for plugin in plugins]
        click.echo(table(("NAME", "STATE", "HOOKS"), rows, colour=uses_colour(), dashes=False))
    else:
        click.echo(table(HEADERS, map(plugin_row, plugins), colour=uses_colour(), dashes=False))


def _report() -> ListPluginsResponse:
    to = manager()
    return to.call(to.plugins.ListPlugins, ListPluginsRequest())


def _is_leader(node_id: str) -> bool:
    from swarmcore.api.control_pb2 import GetNodeRequest

    to = manager()
    try:
        return to.call(to.control.GetNode, GetNodeRequest(node_id=node_id)).node.manager_status.leader
    except CliError:
        return False


def state_word(plugin: Plugin) -> str:
    return enum_name(Plugin.State, plugin.state).lower()


def headline(report: ListPluginsResponse, is_leader: bool) -> str:
    """`manager mgr-1 (leader)   API 1.0   set #14   9 ok, 1 failing, 1 error`."""
    counts = Counter(plugin.state for plugin in report.plugins)
    order = [Plugin.OK, *(state for state in Plugin.State.values() if state != Plugin.OK)]
    words = ", ".join(f"{counts[s]} {enum_name(Plugin.State, s).lower()}" for s in order if counts[s]) or "no plugins"
    leader = " (leader)" if is_leader else ""
    name = report.hostname or report.node_id
    return f"manager {name}{leader}   API {report.api_version}   set #{report.set_number}   {words}"


def short_count(number: int) -> str:
    """`212`, `1.2M`."""
    if number < 10_000:
        return str(number)
    for limit, unit in ((1_000_000, "k"), (1_000_000_000, "M"), (1_000_000_000_000, "G")):
        if number < limit:
            return f"{number / (limit / 1000):.3g}{unit}"
    return f"{number:.3g}"


def short_time(seconds: float) -> str:
    """`31 µs`, `0.4 ms`, `1.5 s`."""
    if seconds < 100e-6:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"


def short_list(capabilities: Iterable[str]) -> str:
    """`filter/{platform,resource}, join/psk`: several of a kind as a shell would write them."""
    kinds: dict[str, list[str]] = {}
    for capability in capabilities:
        kind, _, name = capability.partition("/")
        kinds.setdefault(kind, []).append(name)
    return ", ".join(
        f"{kind}/{names[0]}" if len(names) == 1 else f"{kind}/{{{','.join(names)}}}" for kind, names in kinds.items()
    )


def plugin_row(plugin: Plugin) -> tuple[str, ...]:
    return (
        plugin.name,
        state_word(plugin),
        plugin.version or "-",
        short_list(plugin.provides) or "-",
        str(plugin.order) if plugin.HasField("order") else "-",
        short_count(plugin.calls) if plugin.calls else "-",
        short_time(plugin.p99_seconds) if plugin.HasField("p99_seconds") else "-",
        "; ".join(filter(None, (plugin.error, plugin.note))),
    )


@command.command(name="inspect")
@click.argument("plugin", cls=Named)
@output_option
def inspect(plugin: str, output: str) -> None:
    """Show one plugin, with the traceback of its last error."""
    report = _report()
    found = next((each for each in report.plugins if each.name == plugin), None)
    if found is None:
        raise CliError(f"plugin {plugin!r} not found on this manager: `swarmctl plugins` lists what there is")
    if shown_as_json(found, output):
        return
    click.echo(plugin_page(found))
    if found.traceback:
        click.echo()
        click.echo("".join(c for c in found.traceback.rstrip() if c.isprintable() or c in "\n\t"))


def plugin_page(plugin: Plugin) -> str:
    page = Page()
    page.add("Name", plugin.name)
    page.add("State", state_word(plugin))
    page.add("Distribution", plugin.distribution)
    page.add("Version", plugin.version)
    page.add("Summary", plugin.summary)
    page.add("Provides", ", ".join(plugin.provides))
    page.add("Order", plugin.order if plugin.HasField("order") else None)
    page.add("Hooks", " ".join(plugin.hooks))
    page.add("Loaded in", short_time(plugin.load_seconds) if plugin.load_seconds else "")
    page.add("Calls", plugin.calls or None)
    page.add("P99", short_time(plugin.p99_seconds) if plugin.HasField("p99_seconds") else "")
    page.add("Note", plugin.note)
    page.add("Last error", plugin.error)
    return str(page)


@command.command(name="lock")
def lock() -> None:
    """Print a lock of the plugins installed here: as plugins.lock in its state directory, swarmd loads only these."""
    from swarmcore.plugin import loader
    from swarmcore.plugin.lock import lock_installed

    click.echo(lock_installed(loader.installed()).text(), nl=False)
