"""The page of `swarmctl node inspect`."""

from __future__ import annotations

from dataclasses import dataclass

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole, RaftMemberStatus, Resources
from swarmcore.cli.connection import Manager
from swarmcore.cli.lookup import Names
from swarmcore.cli.node import node_state
from swarmcore.cli.task_table import runs, task_table
from swarmcore.cli.text import Page, cpus, enum_name, memory
from swarmcore.plugin.abilities import PLUGIN_TYPE, stated

EXECUTOR_PLUGIN = "swarmcore/executor"


def show(to: Manager, node: Node, *, every: bool, as_json: bool) -> None:
    filters = pb.ListTasksRequest.Filters(node_ids=[node.id])
    tasks = [
        task
        for task in to.call(to.control.ListTasks, pb.ListTasksRequest(filters=filters)).tasks
        if every or runs(task)
    ]
    if as_json:
        from swarmcore.cli.jsonview import plain, to_json

        executors = [each.as_json() for each in executors_of(node)]
        click.echo(to_json({**plain(node), "executors": executors, "tasks": tasks}))
        return
    click.echo(node_page(node))
    if tasks:
        names = Names(to)
        names.load_services()
        click.echo()
        click.echo(task_table(tasks, names))


def node_page(node: Node) -> str:
    page = Page()
    page.add("ID", node.id)
    page.add("Name", node.spec.annotations.name)
    page.add("Hostname", node.description.hostname)
    page.add("Role", enum_name(NodeRole, node.role))
    if node.spec.desired_role != node.role:
        page.add("Desired role", enum_name(NodeRole, node.spec.desired_role))
    page.add("Membership", enum_name(NodeSpec.Membership, node.spec.membership))
    if node.spec.annotations.labels:
        page.listing("Node Labels", dict(node.spec.annotations.labels))
    with page.section("Status"):
        page.add("State", node_state(node))
        page.add("Message", node.status.message)
        page.add("Availability", enum_name(NodeSpec.Availability, node.spec.availability))
        page.add("Address", node.status.addr)
    if node.HasField("manager_status"):
        with page.section("Manager status"):
            page.add("Address", node.manager_status.addr)
            page.add("Raft status", enum_name(RaftMemberStatus.Reachability, node.manager_status.reachability))
            page.add("Leader", "yes" if node.manager_status.leader else "no")
    _add_description(page, node)
    return str(page)


def _add_description(page: Page, node: Node) -> None:
    description = node.description
    with page.section("Platform"):
        page.add("Operating System", description.platform.os)
        page.add("Architecture", description.platform.architecture)
    if description.HasField("resources"):
        with page.section("Resources"):
            page.add("CPUs", cpus(description.resources.nano_cpus))
            page.add("Memory", memory(description.resources.memory_bytes))
            if description.resources.generic:
                page.add("Generic Resources", generic_text(description.resources))
    plugins: dict[str, list[str]] = {}
    for plugin in description.engine.plugins:
        plugins.setdefault(plugin.type, []).append(plugin.name)
    executors = executors_of(node)
    if executors:
        with page.section("Executors"):
            for executor in executors:
                page.add(executor.runtime, executor.text)
    plugins.pop(EXECUTOR_PLUGIN, None)
    plugins.pop(PLUGIN_TYPE, None)
    if plugins:
        page.listing("Plugins", {kind: ", ".join(sorted(names)) for kind, names in plugins.items()})
    page.add("Engine Version", description.engine.engine_version)
    if description.engine.labels:
        page.listing("Engine Labels", dict(description.engine.labels))


@dataclass(frozen=True, slots=True)
class NodeExecutor:
    """Tasks of one runtime that a node takes, and what its executor can do for them; None where it does not say."""

    runtime: str
    abilities: frozenset[str] | None
    is_stock: bool = False

    @property
    def text(self) -> str:
        if self.abilities is None:
            return "whatever a stock engine can do" if self.is_stock else "does not say what it can do"
        return ", ".join(sorted(self.abilities)) or "runs its tasks, and no more"

    def as_json(self) -> dict[str, object]:
        return {
            "runtime": self.runtime,
            "abilities": None if self.abilities is None else sorted(self.abilities),
            "stock_engine": self.is_stock,
        }


def executors_of(node: Node) -> list[NodeExecutor]:
    """By runtime; none where the node has not described itself yet, or runs no tasks."""
    if not node.HasField("description") or not node.description.HasField("engine"):
        return []
    runtimes = sorted(plugin.name for plugin in node.description.engine.plugins if plugin.type == EXECUTOR_PLUGIN)
    if not runtimes:
        return [NodeExecutor("container", None, is_stock=True)]
    return [NodeExecutor(name, stated(node.description, name)) for name in runtimes if name != "none"]


def generic_text(resources: Resources) -> str:
    """`fpga=2, gpu=UUID1`."""
    parts = []
    for each in resources.generic:
        if each.HasField("named_resource_spec"):
            parts.append(f"{each.named_resource_spec.kind}={each.named_resource_spec.value}")
        else:
            parts.append(f"{each.discrete_resource_spec.kind}={each.discrete_resource_spec.value}")
    return ", ".join(sorted(parts))
