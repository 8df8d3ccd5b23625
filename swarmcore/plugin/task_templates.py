"""Which fields of a container, and of the secrets and configs it gets, are templates, and what they can name.

Used by executors when they prepare a task, and by the manager's dry run. Pure. The language is in `templates.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.plugin.templates import Budget, Function, TemplateError, Value, brief, expand

MAX_PAYLOAD_CHARACTERS = 1024 * 1024
"""Of one secret or config."""


def task_name(task: Task) -> str:
    """SwarmKit's name of a task: `<service>.<slot or node>.<task id>`."""
    if task.annotations.name:
        return task.annotations.name
    return f"{task.service_annotations.name}.{task.slot or task.node_id}.{task.id}"


def task_data(task: Task, node: Node) -> Mapping[str, Value]:
    """What the templates of a task can name. `node` is the one it runs on, as the managers see it."""
    service, description = task.service_annotations, node.description
    return {
        "Service": {"ID": task.service_id, "Name": service.name, "Labels": dict(service.labels)},
        "Node": {
            "ID": task.node_id,
            "Hostname": description.hostname,
            "Platform": {"Architecture": description.platform.architecture, "OS": description.platform.os},
        },
        "Task": {"ID": task.id, "Name": task_name(task), "Slot": str(task.slot or task.node_id)},
    }


def map_templates(spec: ContainerSpec, change: Callable[[str, str], str]) -> None:
    """Give `change` every text of `spec` that may be a template, with its field's name, and put in what it returns.

    Of an environment entry that is what stands behind the first `=`.
    """
    spec.hostname = change(spec.hostname, "hostname")
    for position, entry in enumerate(spec.env):
        name, equals, value = entry.partition("=")
        spec.env[position] = f"{name}{equals}{change(value, f'env[{position}]')}"
    for position, mount in enumerate(spec.mounts):
        field = f"mounts[{position}]"
        mount.source = change(mount.source, f"{field}.source")
        mount.target = change(mount.target, f"{field}.target")
        options = mount.volume_options
        for key, value in list(options.labels.items()):
            options.labels[key] = change(value, f"{field}.volume_options.labels[{brief(key)!r}]")
        for key, value in list(options.driver_config.options.items()):
            name = f"{field}.volume_options.driver_config.options[{brief(key)!r}]"
            options.driver_config.options[key] = change(value, name)


def has_templates(spec: ContainerSpec) -> bool:
    """Whether anything in `spec` would be expanded."""
    return (
        "{{" in spec.hostname
        or any("{{" in entry for entry in spec.env)
        or any(
            "{{" in text
            for mount in spec.mounts
            for text in (
                mount.source,
                mount.target,
                *mount.volume_options.labels.values(),
                *mount.volume_options.driver_config.options.values(),
            )
        )
    )


def expand_container(task: Task, node: Node) -> Task:
    """The task with all templates of its container expanded, or the task itself where there are none.

    Raises TemplateError with the field's name.
    """
    if not has_templates(task.spec.container):
        return task
    expanded = Task()
    expanded.CopyFrom(task)
    data, budget = task_data(task, node), Budget()

    def change(text: str, field: str) -> str:
        try:
            return expand(text, data, budget)
        except TemplateError as error:
            raise TemplateError(f"container.{field}: {error}") from None

    map_templates(expanded.spec.container, change)
    return expanded


def expand_payload(
    payload: bytes, task: Task, node: Node, *, secrets: Mapping[str, bytes], configs: Mapping[str, bytes]
) -> bytes:
    """A secret or config whose templating driver is `golang`, for one task. Raises TemplateError.

    `secrets` and `configs` are what the task gets, by the names of their files: `{{secret "password"}}`,
    `{{config "settings"}}`; `{{env "NAME"}}` is the task's environment, empty where it has no such entry.
    """
    environment: dict[str, str] = dict(
        (name, value) for name, _, value in (entry.partition("=") for entry in task.spec.container.env)
    )

    def one_name(arguments: tuple[Value, ...], function: str) -> str:
        if len(arguments) != 1 or not isinstance(arguments[0], str):
            raise TemplateError(f'{function} takes one name: {{{{{function} "name"}}}}')
        return arguments[0]

    def file(function: str, files: Mapping[str, bytes]) -> Function:
        def read(arguments: tuple[Value, ...]) -> Value:
            name = one_name(arguments, function)
            if name not in files:
                raise TemplateError(f"this task has no {function} with target {brief(name)!r}")
            return _decoded(files[name])

        return read

    functions: Mapping[str, Function] = {
        "secret": file("secret", secrets),
        "config": file("config", configs),
        "env": lambda arguments: environment.get(one_name(arguments, "env"), ""),
    }
    data = task_data(task, node)
    text = expand(_decoded(payload), data, functions=functions, max_characters=MAX_PAYLOAD_CHARACTERS)
    return text.encode(errors="surrogateescape")


def _decoded(payload: bytes) -> str:
    return payload.decode(errors="surrogateescape")
