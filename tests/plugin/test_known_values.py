"""Enum values of later versions are noticed, wherever they are."""

from __future__ import annotations

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import Mount, PortConfig
from swarmcore.plugin.known_values import unknown_value


def test_what_is_known_is_no_finding() -> None:
    task = Task(id="t")
    task.spec.container.labels["a"] = "b"
    task.spec.container.mounts.add(type=Mount.TMPFS)
    task.endpoint.ports.add(publish_mode=PortConfig.HOST)

    assert unknown_value(task, "task") is None


def test_a_later_value_is_named_with_its_path() -> None:
    task = Task(id="t")
    task.spec.container.mounts.add(type=Mount.TMPFS)
    task.spec.container.mounts.add().bind_options.propagation = Mount.BindOptions.Propagation.ValueType(77)

    found = unknown_value(task.spec, "spec")

    assert found == "spec.container.mounts.bind_options.propagation: this version does not know the value 77"
