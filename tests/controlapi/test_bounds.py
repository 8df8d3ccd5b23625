"""What no rule should have to look at is refused before any of them, with the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from swarmcore.api.control_pb2 import CreateServiceRequest, GetServiceRequest, ListTasksRequest
from swarmcore.api.specs_pb2 import ServiceSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.controlapi.validate import bounds
from swarmcore.controlapi.validate.bounds import brief, brief_list, check_id, check_request
from swarmcore.errors import InvalidArgumentError


def request(**fields: Any) -> CreateServiceRequest:
    return CreateServiceRequest(spec=ServiceSpec(**fields))


def refusal(message: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        check_request(message)
    return str(caught.value)


def test_an_ordinary_request_passes() -> None:
    check_request(request(annotations={"name": "web", "labels": {"rack": "r1"}}, task={"container": {"image": "a"}}))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (request(task={"container": {"args": ["a\0b"]}}), "spec.task.container.args[0] has a NUL byte"),
        (request(annotations={"name": "x" * (128 * 1024 + 1)}), "spec.annotations.name has 131073 characters"),
        (request(annotations={"labels": {"": "x"}}), "spec.annotations.labels has an empty key"),
        (request(annotations={"labels": {"a\nb": "x"}}), "spec.annotations.labels has a key with control characters"),
        (request(annotations={"labels": {"a\x1b[2J": "x"}}), "'a?[2J'"),
        (request(annotations={"labels": {"k" * 513: "x"}}), "spec.annotations.labels has a key of 513 characters"),
        (request(annotations={"labels": {"k": "a\0"}}), "spec.annotations.labels['k'] has a NUL byte"),
        (request(annotations={"labels": {str(n): "" for n in range(1001)}}), "spec.annotations.labels has 1001"),
        (request(task={"container": {"env": ["A=b"] * 10_001}}), "spec.task.container.env has 10001 entries"),
        (request(replicated={"replicas": 2**63}), "spec.replicated.replicas must be non-negative"),
        (request(replicated={"replicas": 2**64 - 1}), "not 18446744073709551615"),
        (request(task={"restart": {"condition": 77}}), "spec.task.restart.condition has the unknown value 77"),
        (request(update={"delay": {"seconds": 10**11}}), "spec.update.delay is not a duration"),
        (request(update={"delay": {"seconds": 1, "nanos": -1}}), "spec.update.delay is not a duration"),
        (request(update={"delay": {"nanos": 1_000_000_000}}), "spec.update.delay is not a duration"),
        (request(task={"container": {"image": "x" * (600 * 1024)}}), "the request has"),
        (
            ListTasksRequest(filters=ListTasksRequest.Filters(desired_states=[TaskState.ValueType(1)])),
            "filters.desired_states[0] has the unknown value 1",
        ),
    ],
)
def test_the_field_is_named(message: Any, field: str) -> None:
    assert field in refusal(message)


def test_many_small_values_are_too_many_together() -> None:
    message = request(task={"container": {name: ["a"] * 10_000 for name in ("args", "command", "env", "hosts")}})
    check_request(message)

    message.spec.task.container.groups.extend(["a"] * 10_000)

    assert "more than 50000 values" in refusal(message)


def test_unknown_fields_do_not_get_in() -> None:
    # Field 99 of the spec, with four bytes.
    message = CreateServiceRequest.FromString(b"\x0a\x07" + b"\x9a\x06\x04evil")

    check_request(message)

    assert message.ByteSize() == 2
    assert b"evil" not in message.SerializeToString()


@pytest.mark.parametrize("value", ["", "a\0", "a\nb", "x" * 256, "\x1b[31m"])
def test_what_is_no_id_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="service_id") as caught:
        check_id(value, "service_id")

    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_invalid_utf8_is_refused_by_the_parser() -> None:
    with pytest.raises(Exception, match="parsing"):
        GetServiceRequest.FromString(b"\x0a\x02\xff\xfe")


def test_messages_repeat_little_of_what_was_sent() -> None:
    assert brief("a\nb") == "a?b"
    assert len(brief("x" * 10_000)) == bounds.MAX_SHOWN_CHARACTERS + 1
    assert brief_list([f"s{n}" for n in range(12)]) == "s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 and 2 more"
