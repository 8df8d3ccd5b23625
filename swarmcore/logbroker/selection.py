"""Which nodes have something to say to a log subscription: read from the store, pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from swarmcore.api.logbroker_pb2 import LogSelector, SubscribeLogsRequest
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.errors import InvalidArgumentError
from swarmcore.store.store import View

MAX_SELECTED = 10_000
MAX_ID_BYTES = 128


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selector means now."""

    nodes: frozenset[str]
    pending: tuple[str, ...]
    """Tasks that have no node yet."""


def check_request(request: SubscribeLogsRequest) -> None:
    """Raise InvalidArgumentError for a request that can't be served."""
    selector = request.selector
    ids = [*selector.service_ids, *selector.node_ids, *selector.task_ids]
    if not ids:
        raise InvalidArgumentError("log selector is empty: name at least one service, node or task")
    if len(ids) > MAX_SELECTED:
        raise InvalidArgumentError(f"log selector names {len(ids)} objects: at most {MAX_SELECTED} are taken")
    if any(not id or len(id) > MAX_ID_BYTES for id in ids):
        raise InvalidArgumentError("log selector: an id is empty or too long")
    if request.options.tail > 0:
        raise InvalidArgumentError("options.tail: a number of first lines is not supported; -1-n asks for the last n")


def select(view: View, selector: LogSelector, *, follow: bool) -> Selection:
    """The nodes of what `selector` names, and its tasks that have none.

    Without `follow` a service means those of its tasks that have come to run: nobody waits for the others.
    """
    nodes = {id for id in selector.node_ids if id in view.node}
    pending = []
    for task in _tasks(view, selector, follow=follow):
        if task.node_id:
            nodes.add(task.node_id)
        else:
            pending.append(task.id)
    return Selection(frozenset(nodes), tuple(pending))


def _tasks(view: View, selector: LogSelector, *, follow: bool) -> Iterator[Task]:
    for id in selector.task_ids:
        task = view.task.get(id)
        if task is not None:
            yield task
    for id in selector.service_ids:
        for task in view.task.by("service", id):
            if follow or task.status.state >= TaskState.RUNNING:
                yield task
