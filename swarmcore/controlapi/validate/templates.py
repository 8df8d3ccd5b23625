"""Templates in a container's spec: a dry run before anything is stored (SwarmKit: 13.1).

Node and task are made up; name and labels of the service are the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import Annotations
from swarmcore.errors import InvalidArgumentError
from swarmcore.plugin.task_templates import has_templates, map_templates
from swarmcore.plugin.templates import Budget, TemplateError, Value, expand


def sample_data(service: Annotations) -> Mapping[str, Value]:
    """What templates of this service can name, with a made-up node and task."""
    return {
        "Service": {"ID": "serviceid", "Name": service.name, "Labels": dict(service.labels)},
        "Node": {
            "ID": "nodeid",
            "Hostname": "nodeHostname",
            "Platform": {"Architecture": "architecture", "OS": "os"},
        },
        "Task": {"ID": "taskid", "Name": f"{service.name}.1.taskid", "Slot": "1"},
    }


def check_templates(spec: ContainerSpec, service: Annotations) -> list[str]:
    """Expand every template of `spec`; returns the targets of its mounts as a task would get them.

    Raises InvalidArgumentError with the field's name. Values of variables are not in it: they may be secret.
    """
    if not has_templates(spec):
        return [mount.target for mount in spec.mounts]
    data, budget = sample_data(service), Budget()

    def check(text: str, field: str) -> str:
        try:
            return expand(text, data, budget)
        except TemplateError as error:
            raise InvalidArgumentError(f"expanding task.container.{field} failed: {error}") from None

    expanded = ContainerSpec()
    expanded.CopyFrom(spec)
    map_templates(expanded, check)
    return [mount.target for mount in expanded.mounts]
