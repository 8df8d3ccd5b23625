"""Bounds that hold for every request: size, count, text, numbers, enums. Checked before any other rule.

A transaction takes 1.5 MiB, and a service keeps its previous spec beside its spec: hence half a MiB for a spec.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from swarmcore.errors import InvalidArgumentError

MAX_SPEC_BYTES = 512 * 1024
MAX_ID_CHARACTERS = 255
MAX_TEXT_CHARACTERS = 128 * 1024
"""For one string; Linux takes no longer one in an argument or an environment entry."""
MAX_ITEMS = 10_000
"""Entries of one list: arguments, environment, constraints, filters."""
MAX_LABELS = 1_000
"""Entries of one map."""
MAX_LABEL_KEY_CHARACTERS = 512
MAX_INT64 = 2**63 - 1
MAX_DURATION_SECONDS = 9_223_372_036
"""What fits into 64 bits of nanoseconds: 292 years."""
MAX_DEPTH = 16

_MESSAGE = FieldDescriptor.CPPTYPE_MESSAGE
_STRING = FieldDescriptor.TYPE_STRING
_UINT64 = FieldDescriptor.TYPE_UINT64
_ENUM = FieldDescriptor.CPPTYPE_ENUM


def check_request(request: Message, max_bytes: int = MAX_SPEC_BYTES) -> None:
    """Refuse what no rule should have to look at. Every refusal names the path of the field."""
    size = request.ByteSize()
    if size > max_bytes:
        raise InvalidArgumentError(f"the request has {size} bytes, and at most {max_bytes} are taken: send less")
    _check(request, "", 0)


def check_id(value: str, field: str) -> str:
    """An id that is given; returns it."""
    if not value:
        raise InvalidArgumentError(f"invalid argument: {field} is empty")
    if len(value) > MAX_ID_CHARACTERS or "\0" in value:
        raise InvalidArgumentError(f"invalid argument: {field} is not an id")
    return value


def duration_nanoseconds(duration: Duration) -> int:
    """The length of a duration that `check_request` let pass."""
    return duration.seconds * 1_000_000_000 + duration.nanos


@cache
def _map_value(descriptor: Descriptor) -> FieldDescriptor | None:
    """The value's field when `descriptor` is the entry of a map."""
    return descriptor.fields_by_name["value"] if descriptor.GetOptions().map_entry else None


def _check(message: Message, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"{path} is nested too deeply")
    if isinstance(message, Duration):
        _check_duration(message, path)
        return
    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        entry = field.message_type
        if entry is not None and _map_value(entry) is not None:
            _check_map(entry, value, name, depth)
        elif field.is_repeated:
            if len(value) > MAX_ITEMS:
                raise InvalidArgumentError(f"{name} has {len(value)} entries, and at most {MAX_ITEMS} are taken")
            for position, item in enumerate(value):
                _check_value(field, item, f"{name}[{position}]", depth)
        else:
            _check_value(field, value, name, depth)


def _check_map(entry: Descriptor, values: Any, name: str, depth: int) -> None:
    if len(values) > MAX_LABELS:
        raise InvalidArgumentError(f"{name} has {len(values)} entries, and at most {MAX_LABELS} are taken")
    value_field = entry.fields_by_name["value"]
    for key, value in values.items():
        if isinstance(key, str):
            _check_text(key, f"a key of {name}", MAX_LABEL_KEY_CHARACTERS)
            _check_value(value_field, value, f"{name}[{key[:64]!r}]", depth)


def _check_value(field: FieldDescriptor, value: Any, name: str, depth: int) -> None:
    if field.type == _STRING:
        _check_text(value, name, MAX_TEXT_CHARACTERS)
    elif field.cpp_type == _MESSAGE:
        _check(value, name, depth + 1)
    elif field.cpp_type == _ENUM:
        enum = field.enum_type
        if enum is not None and value not in enum.values_by_number:
            raise InvalidArgumentError(f"{name} has the unknown value {value}")
    elif field.type == _UINT64 and value > MAX_INT64:
        raise InvalidArgumentError(f"{name} is {value}, which is negative as a signed number or too large")


def _check_text(value: str, name: str, longest: int) -> None:
    if len(value) > longest:
        raise InvalidArgumentError(f"{name} has {len(value)} characters, and at most {longest} are taken")
    if "\0" in value:
        raise InvalidArgumentError(f"{name} has a NUL byte: leave it out")


def _check_duration(duration: Duration, name: str) -> None:
    seconds, nanos = duration.seconds, duration.nanos
    mixed = (seconds > 0 > nanos) or (seconds < 0 < nanos)
    if abs(seconds) > MAX_DURATION_SECONDS or abs(nanos) > 999_999_999 or mixed:
        raise InvalidArgumentError(f"{name} is not a duration of at most 292 years")
