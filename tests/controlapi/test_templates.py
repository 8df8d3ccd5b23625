"""Templates of container specs: the part of Go's language that is understood, and what is said about the rest."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import Annotations, Driver, Mount
from swarmcore.controlapi.validate.templates import check_templates, sample_data
from swarmcore.errors import InvalidArgumentError
from swarmcore.plugin.templates import TemplateError, expand

SERVICE = Annotations(name="web", labels={"rack": "r1", "com.example.x": "y"})
DATA = sample_data(SERVICE)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("", ""),
        ("}} stays", "}} stays"),
        ("{ {.Node.ID} }", "{ {.Node.ID} }"),
        ("{{.Node.Hostname}}", "nodeHostname"),
        ("{{ .Service.Name }}-{{.Task.Slot}}", "web-1"),
        ("{{.Service.Labels.rack}}", "r1"),
        ('{{index .Service.Labels "com.example.x"}}', "y"),
        ('{{index .Service.Labels "missing"}}', ""),
        ("{{index .Service.Labels `com.example.x`}}", "y"),
        ('{{join "-" .Service.Name .Node.ID "x"}}', "web-nodeid-x"),
        ('{{join "-" (index .Service.Labels "rack") .Node.ID}}', "r1-nodeid"),
        ('{{.Node.ID | join "/" .Service.Name}}', "web/nodeid"),
        ('{{print "a}}b" .Task.ID}}', "a}}btaskid"),
        ('{{"quoted \\"text\\""}}', 'quoted "text"'),
        ("{{5}}", "5"),
        ("a {{- .Node.ID -}} b", "anodeidb"),
        ("a{{/* a note }} */}}b", "ab"),
        ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "os/architecture"),
        ("{{(.Service.ID)}}", "serviceid"),
    ],
)
def test_expanding(text: str, expanded: str) -> None:
    assert expand(text, DATA) == expanded


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{", "unclosed action"),
        ("{{.Node.ID", "unclosed action"),
        ('{{"a}}', "unexpected"),
        ("{{/* a", "unclosed action"),
        ("{{}}", "missing value"),
        ("{{.Node.Nothing}}", "no field '.Node.Nothing'"),
        ("{{.Service.Labels.missing}}", "no field '.Service.Labels.missing'"),
        ("{{.Node.ID.More}}", "no field"),
        ("{{.Service}}", "a whole group of fields"),
        ("{{.Service.Labels}}", "a whole group of fields"),
        ("{{.}}", "unexpected '.'"),
        ("{{env `HOME`}}", "function 'env' is not supported"),
        ("{{if .Node.ID}}x{{end}}", "function 'if' is not supported"),
        ("{{$x := 1}}", "unexpected '$'"),
        ("{{.Node.ID .Node.ID}}", "only a function takes arguments"),
        ("{{index}}", "index needs"),
        ("{{index .Node.ID 3}}", "index takes labels"),
        ("{{join}}", "join needs"),
        ('{{join "," .Service}}', "a whole group"),
        ("{{(.Node.ID}}", "unclosed parenthesis"),
        ("{{.Node.ID)}}", "unexpected"),
        ("{{.Node.ID |}}", "missing value"),
        ("{{" + "(" * 50 + ".Node.ID" + ")" * 50 + "}}", "nested too deeply"),
        ('{{"\\q"}}', "unknown escape"),
        ("{{" + "9" * 30 + "}}", "a number is too large"),
        ('{{"a""b"}}', "put a space before it"),
    ],
)
def test_refusing(text: str, says: str) -> None:
    with pytest.raises(TemplateError) as caught:
        expand(text, DATA)

    assert says in str(caught.value)


@given(st.text(alphabet=st.sampled_from(list('{}.()|"`\\-/* \nNodeID.Servcabjoinx09é\0'))))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    said = "fine"
    try:
        expand("{{" + text, DATA)
    except TemplateError as error:
        said = str(error)

    assert said.isprintable()
    assert len(said) < 400


def test_a_spec_cannot_grow_without_end() -> None:
    data = sample_data(Annotations(name="web", labels={"big": "x" * 100_000}))
    text = "{{.Service.Labels.big}}" * 5_000
    started = time.monotonic()

    with pytest.raises(TemplateError, match="expands to more than 131072 characters"):
        expand(text, data)
    spec = ContainerSpec(env=["A={{.Service.Labels.big}}"] * 10_000)
    with pytest.raises(InvalidArgumentError, match="expand to more than 2097152 characters"):
        check_templates(spec, Annotations(name="web", labels={"big": "x" * 100_000}))

    assert time.monotonic() - started < 2


def test_every_templated_field_is_tried() -> None:
    cases: dict[str, ContainerSpec] = {
        "hostname": ContainerSpec(hostname="{{.X}}"),
        "env[1]": ContainerSpec(env=["A=b", "B={{.X}}"]),
        "mounts[0].source": ContainerSpec(mounts=[Mount(source="{{.X}}", target="/a")]),
        "mounts[0].target": ContainerSpec(mounts=[Mount(target="{{.X}}")]),
        "mounts[0].volume_options.labels['k']": ContainerSpec(
            mounts=[Mount(volume_options=Mount.VolumeOptions(labels={"k": "{{.X}}"}))]
        ),
        "mounts[0].volume_options.driver_config.options['k']": ContainerSpec(
            mounts=[Mount(volume_options=Mount.VolumeOptions(driver_config=Driver(options={"k": "{{.X}}"})))]
        ),
    }
    for field, spec in cases.items():
        with pytest.raises(InvalidArgumentError) as caught:
            check_templates(spec, SERVICE)
        assert (
            str(caught.value) == f"expanding task.container.{field} failed: no field '.X': see Service, Node and Task"
        )


def test_the_name_of_a_variable_is_no_template() -> None:
    assert check_templates(ContainerSpec(env=["{{.X}}=1", "{{.X}}"]), SERVICE) == []


def test_values_of_variables_are_not_repeated() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_templates(ContainerSpec(env=["PASSWORD=hunter2{{.Node.ID"]), SERVICE)

    assert "hunter2" not in str(caught.value)


def test_targets_of_mounts_are_returned_expanded() -> None:
    spec = ContainerSpec(mounts=[Mount(target="/data/{{.Task.Slot}}"), Mount(target="/x")])

    assert check_templates(spec, SERVICE) == ["/data/1", "/x"]
