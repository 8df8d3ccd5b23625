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
MAX_VALUES = 50_000
"""Fields, entries and messages of a whole request: about 50 ms of work for the rules that look at each."""
MAX_INT64 = 2**63 - 1
MAX_DURATION_SECONDS = 9_223_372_036
"""What fits into 64 bits of nanoseconds: 292 years."""
MAX_DEPTH = 16
MAX_SHOWN_CHARACTERS = 100

_MESSAGE = FieldDescriptor.CPPTYPE_MESSAGE
_STRING = FieldDescriptor.TYPE_STRING
_UINT64 = FieldDescriptor.TYPE_UINT64
_ENUM = FieldDescriptor.CPPTYPE_ENUM


def brief(text: str) -> str:
    """`text` for an error message: on one line, printable, and no longer than a line can hold."""
    shown = text[:MAX_SHOWN_CHARACTERS]
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else "?" for char in shown)
    return shown if len(text) <= MAX_SHOWN_CHARACTERS else f"{shown}…"


def brief_list(texts: list[str], most: int = 10) -> str:
    """Several of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(brief(text)[:64] for text in texts[:most]) + more


def check_request(request: Message, max_bytes: int = MAX_SPEC_BYTES) -> None:
    """Refuse what no rule should have to look at. Every refusal names the path of the field.

    Fields that this version does not know are dropped, as SwarmKit does: nothing could read them in the store.
    """
    size = request.ByteSize()
    if size > max_bytes:
        raise InvalidArgumentError(f"the request has {size} bytes, and at most {max_bytes} are taken: send less")
    request.DiscardUnknownFields()
    _Walk().check(request, "", 0)


def check_id(value: str, field: str) -> str:
    """An id that is given; returns it."""
    if not value:
        raise InvalidArgumentError(f"invalid argument: {field} is empty")
    if len(value) > MAX_ID_CHARACTERS or not value.isprintable():
        raise InvalidArgumentError(
            f"invalid argument: {field} {brief(value)!r} is not an id: it must be printable, "
            f"of at most {MAX_ID_CHARACTERS} characters"
        )
    return value


def duration_nanoseconds(duration: Duration) -> int:
    """The length of a duration that `check_request` let pass."""
    return duration.seconds * 1_000_000_000 + duration.nanos


@cache
def _map_value(descriptor: Descriptor) -> FieldDescriptor | None:
    """The value's field when `descriptor` is the entry of a map."""
    return descriptor.fields_by_name["value"] if descriptor.GetOptions().map_entry else None


class _Walk:
    """One walk over a request, which counts what it meets."""

    def __init__(self) -> None:
        self._values = 0

    def check(self, message: Message, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InvalidArgumentError(f"{path} is nested too deeply")
        if isinstance(message, Duration):
            _check_duration(message, path)
            return
        fields = message.ListFields()
        self._count(len(fields))
        for field, value in fields:
            name = f"{path}.{field.name}" if path else field.name
            entry = field.message_type
            if entry is not None and (of := _map_value(entry)) is not None:
                self._check_map(of, value, name, depth)
            elif field.is_repeated:
                if len(value) > MAX_ITEMS:
                    raise InvalidArgumentError(f"{name} has {len(value)} entries, and at most {MAX_ITEMS} are taken")
                self._count(len(value))
                for position, item in enumerate(value):
                    self._check_value(field, item, f"{name}[{position}]", depth)
            else:
                self._check_value(field, value, name, depth)

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise InvalidArgumentError(f"the request has more than {MAX_VALUES} values: send less")

    def _check_map(self, of: FieldDescriptor, values: Any, name: str, depth: int) -> None:
        if len(values) > MAX_LABELS:
            raise InvalidArgumentError(f"{name} has {len(values)} entries, and at most {MAX_LABELS} are taken")
        self._count(len(values))
        for key, value in values.items():
            if not key:
                raise InvalidArgumentError(f"{name} has an empty key: leave it out")
            if len(key) > MAX_LABEL_KEY_CHARACTERS:
                raise InvalidArgumentError(
                    f"{name} has a key of {len(key)} characters, and at most {MAX_LABEL_KEY_CHARACTERS} are taken"
                )
            if not key.isprintable():
                raise InvalidArgumentError(f"{name} has a key with control characters: {brief(key)!r}")
            self._check_value(of, value, f"{name}[{brief(key)!r}]", depth)

    def _check_value(self, field: FieldDescriptor, value: Any, name: str, depth: int) -> None:
        if field.type == _STRING:
            _check_text(value, name)
        elif field.cpp_type == _MESSAGE:
            self.check(value, name, depth + 1)
        elif field.cpp_type == _ENUM:
            enum = field.enum_type
            # The action of a watch is a set of bits in the guise of an enum.
            if enum is not None and value not in enum.values_by_number and enum.name != "WatchActionKind":
                raise InvalidArgumentError(f"{name} has the unknown value {value}")
        elif field.type == _UINT64 and value > MAX_INT64:
            raise InvalidArgumentError(f"{name} must be non-negative and less than 2^63, not {value}")


def _check_text(value: str, name: str) -> None:
    if len(value) > MAX_TEXT_CHARACTERS:
        raise InvalidArgumentError(f"{name} has {len(value)} characters, and at most {MAX_TEXT_CHARACTERS} are taken")
    if "\0" in value:
        raise InvalidArgumentError(f"{name} has a NUL byte: leave it out")


def _check_duration(duration: Duration, name: str) -> None:
    seconds, nanos = duration.seconds, duration.nanos
    mixed = (seconds > 0 > nanos) or (seconds < 0 < nanos)
    if abs(seconds) > MAX_DURATION_SECONDS or abs(nanos) > 999_999_999 or mixed:
        raise InvalidArgumentError(f"{name} is not a duration of at most 292 years")
