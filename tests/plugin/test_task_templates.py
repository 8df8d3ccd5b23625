"""What templates of a task can name, and where they may stand."""

from __future__ import annotations

import pytest

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import Mount
from swarmcore.plugin.task_templates import expand_container, expand_payload
from swarmcore.plugin.templates import TemplateError


def task(slot: int = 3) -> Task:
    made = Task(id="t1", service_id="s1", node_id="n1", slot=slot)
    made.service_annotations.name = "web"
    made.service_annotations.labels["tier"] = "front"
    return made


def node() -> Node:
    made = Node(id="n1")
    made.description.hostname = "docker1"
    made.description.platform.os = "linux"
    made.description.platform.architecture = "x86_64"
    return made


def test_every_field_that_may_be_a_template_is_expanded_and_nothing_else_is() -> None:
    given = task()
    container = given.spec.container
    container.hostname = "{{.Node.Hostname}}-{{.Task.Slot}}"
    container.env.extend(["A={{.Task.Name}}", "{{.Task.ID}}", "B=x={{.Node.Platform.OS}}"])
    container.args.append("{{.Task.ID}}")
    mount = container.mounts.add(type=Mount.VOLUME, source="v-{{.Service.ID}}", target="/{{.Node.ID}}")
    mount.volume_options.labels["tier"] = "{{.Service.Labels.tier}}"
    mount.volume_options.driver_config.options["o"] = '{{index .Service.Labels "tier"}}'
    before = Task()
    before.CopyFrom(given)

    expanded = expand_container(given, node()).spec.container

    assert expanded.hostname == "docker1-3"
    assert list(expanded.env) == ["A=web.3.t1", "{{.Task.ID}}", "B=x=linux"]
    assert list(expanded.args) == ["{{.Task.ID}}"]
    assert (expanded.mounts[0].source, expanded.mounts[0].target) == ("v-s1", "/n1")
    assert expanded.mounts[0].volume_options.labels["tier"] == "front"
    assert expanded.mounts[0].volume_options.driver_config.options["o"] == "front"
    assert given == before


def test_a_task_without_slot_is_told_its_node_instead() -> None:
    given = task(slot=0)
    given.spec.container.env.append("S={{.Task.Slot}} {{.Task.Name}}")

    assert list(expand_container(given, node()).spec.container.env) == ["S=n1 web.n1.t1"]


def test_a_task_without_templates_is_not_even_copied() -> None:
    given = task()
    given.spec.container.env.append("A=b")

    assert expand_container(given, node()) is given


def test_the_error_names_the_field_and_not_what_stands_around_the_braces() -> None:
    given = task()
    given.spec.container.env.append("PASSWORD=hunter2{{.Nothing}}")

    with pytest.raises(TemplateError, match=r"container\.env\[0\]: no field") as caught:
        expand_container(given, node())

    assert "hunter2" not in str(caught.value)


def test_a_payload_can_name_the_tasks_other_files_and_its_environment() -> None:
    given = task()
    given.spec.container.env.append("MODE=fast")
    text = b'\xff{{secret "password"}} {{config "settings"}} {{env "MODE"}}{{env "NONE"}} {{.Task.Slot}}'

    made = expand_payload(text, given, node(), secrets={"password": b"\xfe"}, configs={"settings": b"x"})

    assert made == b"\xff\xfe x fast 3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{{secret "other"}}', "no secret with target 'other'"),
        (b'{{config "password"}}', "no config with target 'password'"),
        (b"{{secret}}", "secret takes one name"),
        (b"{{range .Task}}", "function 'range' is not supported: there are index, join, print, secret, config, env"),
    ],
)
def test_a_payload_that_names_what_the_task_has_not_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        expand_payload(text, task(), node(), secrets={"password": b"x"}, configs={})
