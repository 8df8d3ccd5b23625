"""Whether a task still is what its service asks for (SwarmKit: part 5)."""

from __future__ import annotations

from enum import Enum

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.errors import InvalidArgumentError
from swarmcore.plugin import constraints


class Difference(Enum):
    """How far a task's spec is from its service's. The same for all tasks of a service at one spec version."""

    NONE = "none"
    PLACEMENT = "placement"
    """The placement, and nothing else: its node may do anyhow."""
    PULL_OPTIONS = "pull options"
    """How the image is fetched, and nothing else: no matter once it was."""
    OTHER = "other"


def is_dirty(service: Service, task: Task, node: Node | None) -> bool:
    """Whether `task`, on `node` if it has one, has to be replaced for `service` to run by its spec."""
    return is_dirty_by(difference(service, task), service, task, node)


def difference(service: Service, task: Task) -> Difference:
    """Compare deeply, unless the spec versions say that there is nothing to compare."""
    if (
        service.HasField("spec_version")
        and task.HasField("spec_version")
        and service.spec_version.index == task.spec_version.index
    ):
        return Difference.NONE
    if task.HasField("endpoint") and service.spec.endpoint != task.endpoint.spec:
        return Difference.OTHER
    wanted = service.spec.task
    if wanted == task.spec:
        return Difference.NONE
    adapted = TaskSpec()
    adapted.CopyFrom(wanted)
    adapted.ClearField("placement")
    if task.spec.HasField("placement"):
        adapted.placement.CopyFrom(task.spec.placement)
    if adapted == task.spec:
        return Difference.PLACEMENT
    if wanted.HasField("container") and task.spec.HasField("container"):
        adapted.CopyFrom(wanted)
        adapted.container.ClearField("pull_options")
        if task.spec.container.HasField("pull_options"):
            adapted.container.pull_options.CopyFrom(task.spec.container.pull_options)
        if adapted == task.spec:
            return Difference.PULL_OPTIONS
    return Difference.OTHER


def is_dirty_by(found: Difference, service: Service, task: Task, node: Node | None) -> bool:
    """The same as `is_dirty`, where the specs were compared before."""
    match found:
        case Difference.NONE:
            return False
        case Difference.PLACEMENT:
            return node is None or not satisfies(node, service.spec.task)
        case Difference.PULL_OPTIONS:
            has_image = TaskState.READY <= task.status.state <= TaskState.RUNNING
            return not (has_image and task.desired_state <= TaskState.RUNNING)
        case Difference.OTHER:
            return True


def satisfies(node: Node, spec: TaskSpec) -> bool:
    """Whether `node` satisfies the placement constraints of `spec`. What does not parse holds nobody off."""
    expressions = spec.placement.constraints
    if not expressions:
        return True
    try:
        return constraints.node_matches(node, constraints.parse(expressions))
    except InvalidArgumentError:
        return True
