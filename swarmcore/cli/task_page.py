"""The page of `swarmctl task inspect`."""

from __future__ import annotations

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Task
from swarmcore.cli.connection import Manager
from swarmcore.cli.lookup import Names
from swarmcore.cli.service_page import add_status, add_task_spec
from swarmcore.cli.task_table import task_table
from swarmcore.cli.text import Page


def show(to: Manager, task: Task, *, as_json: bool) -> None:
    same_slot = _same_slot(to, task)
    if as_json:
        from swarmcore.cli.jsonview import plain, to_json

        click.echo(to_json({**plain(task), "parents": [each for each in same_slot if each.id != task.id]}))
        return
    names = Names(to)
    click.echo(task_page(task, names))
    if same_slot:
        click.echo("\n===> Task Parents")
        click.echo(task_table(same_slot, names))


def _same_slot(to: Manager, task: Task) -> list[Task]:
    """All tasks of the same slot, or for a global service of the same node, the task itself among them."""
    if not task.service_id:
        return []
    filters = pb.ListTasksRequest.Filters(service_ids=[task.service_id])
    if not task.slot:
        filters.node_ids.append(task.node_id)
    tasks = to.call(to.control.ListTasks, pb.ListTasksRequest(filters=filters)).tasks
    return [each for each in tasks if each.slot == task.slot and (task.slot or each.node_id == task.node_id)]


def task_page(task: Task, names: Names) -> str:
    page = Page()
    page.add("ID", task.id)
    page.add("Slot", task.slot or None)
    page.add("Service", names.service(task.service_id))
    add_status(page, task)
    page.add("Node", names.node(task.node_id))
    with page.section("Spec"):
        add_task_spec(page, task.spec, {})
    return str(page)
