"""`swarmctl node`: list, inspect and manage nodes."""

from __future__ import annotations

from collections.abc import Callable

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.brake import is_held
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole, NodeStatus, RaftMemberStatus
from swarmcore.cli.command_line import CliError, Group, Named, example, output_option, quiet_option
from swarmcore.cli.connection import Manager, manager, with_fresh_read
from swarmcore.cli.listing import show_list
from swarmcore.cli.lookup import find_node, node_name
from swarmcore.cli.text import enum_name

HEADERS = ("ID", "Name", "Membership", "Status", "Availability", "Manager status")
_DONE = {
    NodeSpec.ACTIVE: "is already active",
    NodeSpec.PAUSE: "was already paused",
    NodeSpec.DRAIN: "was already drained",
}


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """List, inspect and manage nodes."""


def manager_status(node: Node) -> str:
    """`REACHABLE *` for the leader; empty for a worker."""
    if node.HasField("manager_status"):
        word = enum_name(RaftMemberStatus.Reachability, node.manager_status.reachability)
        return f"{word} *" if node.manager_status.leader else word
    return "UNKNOWN" if node.spec.desired_role == NodeRole.MANAGER else ""


def node_state(node: Node) -> str:
    """`READY`; `DOWN (held)` while the brake keeps its tasks from being replaced."""
    word = enum_name(NodeStatus.State, node.status.state)
    return f"{word} (held)" if is_held(node) else word


def node_row(node: Node) -> tuple[str, ...]:
    return (
        node.id,
        node_name(node) if node.spec.annotations.name or node.description.hostname else "",
        enum_name(NodeSpec.Membership, node.spec.membership),
        node_state(node),
        enum_name(NodeSpec.Availability, node.spec.availability),
        manager_status(node),
    )


@command.command(name="ls")
@quiet_option
@output_option
def ls(quiet: bool, output: str) -> None:
    """List nodes."""
    to = manager()
    nodes = sorted(
        to.call(to.control.ListNodes, pb.ListNodesRequest()).nodes, key=lambda node: (node_name(node), node.id)
    )
    show_list(nodes, HEADERS, node_row, quiet=quiet, output=output)


@command.command(
    name="inspect", epilog=example("swarmctl node inspect docker1", "swarmctl node inspect docker1 -o json")
)
@click.argument("node", cls=Named)
@click.option("--all", "-a", "every", is_flag=True, help="Show tasks that have ended, too.")
@output_option
def inspect(node: str, every: bool, output: str) -> None:
    """Show a node and its tasks."""
    from swarmcore.cli.node_page import show

    to = manager()
    show(to, find_node(to, node), every=every, as_json=output == "json")


def change(typed: str, edit: Callable[[Node, NodeSpec], None]) -> Node:
    """Read the node, let `edit` change its spec, write it."""
    to = manager()

    def once() -> Node:
        node = find_node(to, typed)
        spec = NodeSpec()
        spec.CopyFrom(node.spec)
        edit(node, spec)
        request = pb.UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=spec)
        return to.call(to.control.UpdateNode, request).node

    return with_fresh_read(once)


@command.command(name="update", epilog=example("swarmctl node update docker1 --label disk=ssd --label zone=a"))
@click.argument("node", cls=Named)
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="The node's labels: replaces them all. Repeatable.")
def update(node: str, label: tuple[str, ...]) -> None:
    """Set a node's labels, which constraints match as node.labels.KEY."""
    from swarmcore.cli.values import key_values

    def edit(found: Node, spec: NodeSpec) -> None:
        if label:
            try:
                wanted = key_values(text for text in label if text)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="--label") from None
            spec.annotations.labels.clear()
            spec.annotations.labels.update(wanted)
        if spec == found.spec:
            raise CliError(f"No change for node {node}: give --label KEY=VALUE")

    click.echo(change(node, edit).id)


def _set_availability(typed: str, wanted: NodeSpec.Availability.ValueType) -> None:
    def edit(node: Node, spec: NodeSpec) -> None:
        if spec.availability == wanted:
            raise CliError(f"Node {typed} {_DONE[wanted]}")
        spec.availability = wanted

    change(typed, edit)


@command.command(name="activate")
@click.argument("node", cls=Named)
def activate(node: str) -> None:
    """Give a node tasks again."""
    _set_availability(node, NodeSpec.ACTIVE)


@command.command(name="pause")
@click.argument("node", cls=Named)
def pause(node: str) -> None:
    """Give a node no new tasks; those it has go on."""
    _set_availability(node, NodeSpec.PAUSE)


@command.command(name="drain")
@click.argument("node", cls=Named)
def drain(node: str) -> None:
    """Move a node's tasks to other nodes, and give it no new ones."""
    _set_availability(node, NodeSpec.DRAIN)


def _set_role(typed: str, wanted: NodeRole.ValueType, already: str) -> None:
    def edit(node: Node, spec: NodeSpec) -> None:
        if spec.desired_role == wanted:
            raise CliError(f"Node {typed} is already a {already}")
        spec.desired_role = wanted

    change(typed, edit)


@command.command(name="promote")
@click.argument("node", cls=Named)
def promote(node: str) -> None:
    """Make a worker a manager."""
    _set_role(node, NodeRole.MANAGER, "manager")


@command.command(name="demote")
@click.argument("node", cls=Named)
def demote(node: str) -> None:
    """Make a manager a worker."""
    _set_role(node, NodeRole.WORKER, "worker")


@command.command(name="accept")
@click.argument("node", cls=Named)
def accept(node: str) -> None:
    """Let a node in that waits as PENDING."""

    def edit(found: Node, spec: NodeSpec) -> None:
        if spec.membership == NodeSpec.ACCEPTED:
            raise CliError(f"Node {node} is already accepted")
        spec.membership = NodeSpec.ACCEPTED

    change(node, edit)


def _remove(to: Manager, node: Node, *, force: bool) -> None:
    to.call(to.control.RemoveNode, pb.RemoveNodeRequest(node_id=node.id, force=force))


@command.command(name="reject")
@click.argument("node", cls=Named)
def reject(node: str) -> None:
    """Turn away a node that waits as PENDING, and forget it."""
    to = manager()
    found = find_node(to, node)
    if found.spec.membership != NodeSpec.PENDING:
        raise CliError(f"Node {node} was accepted already: `swarmctl node remove` removes it")
    _remove(to, found, force=True)


@command.command(name="remove")
@click.argument("node", cls=Named)
@click.option("--force", "-f", is_flag=True, help="Remove it even where it is not down.")
def remove(node: str, force: bool) -> None:
    """Remove a node from the swarm; its certificate is worth nothing from then on."""
    to = manager()
    _remove(to, find_node(to, node), force=force)
