"""Every field that a task can have, one by one and with every value of an enum: does an executor look at it?

Walks the descriptors, so that a field which a later version adds is asked for too. Pure; used by the tests of executors
whose request can be computed without an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import TaskRejectedError

Path = Sequence[FieldDescriptor]
_ATOMS = {"google.protobuf.Duration": ("seconds", 7), "google.protobuf.Int64Value": ("value", 7)}
"""Messages that stand for one value, and what they are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One field with one value."""

    field: str
    """Its path below the task, without positions: `spec.container.mounts.bind_options.propagation`."""
    value: str
    base: Task
    """A task in which the field makes sense, without it."""
    given: Task
    """The same with it."""


def probes(root: str, prepare: Callable[[Task, str], None], values: Mapping[str, Any]) -> Iterator[Probe]:
    """A probe for each field below the task's `root`, and for each value that its enum has.

    `prepare` gets a task and the path of a field, and adds what the field needs to make sense; `values` are texts and
    numbers by path, for fields that do not take just any.
    """
    names = root.split(".")
    path: list[FieldDescriptor] = []
    descriptor: Descriptor = Task.DESCRIPTOR
    for name in names:
        path.append(descriptor.fields_by_name[name])
        assert path[-1].message_type is not None
        descriptor = path[-1].message_type
    for leaf in _leaves(descriptor, path):
        name = ".".join(field.name for field in leaf)
        for value in values.get(name, _values(leaf[-1])):
            base = Task(id="t" * 25)
            prepare(base, name)
            given = Task()
            given.CopyFrom(base)
            _give(given, leaf, value)
            yield Probe(field=name, value=_shown(leaf[-1], value), base=base, given=given)


def is_ignored(probe: Probe, ask: Callable[[Task], object]) -> bool:
    """Whether `ask`, which computes what an executor would do, makes nothing of the field; a refusal names it."""
    without = ask(probe.base)
    try:
        return ask(probe.given) == without
    except TaskRejectedError as error:
        return not _names(str(error), probe.field)


def _names(text: str, field: str) -> bool:
    """Whether a refusal names the field, or a message that it is in."""
    parts = field.split(".")
    return any(part in text for part in parts[-3:])


def _leaves(descriptor: Descriptor, path: list[FieldDescriptor]) -> Iterator[Path]:
    for field in descriptor.fields:
        here = [*path, field]
        inner = field.message_type
        if inner is None or inner.full_name in _ATOMS or inner.GetOptions().map_entry or not inner.fields:
            yield here
        elif inner not in [each.containing_type for each in path]:
            yield from _leaves(inner, here)


def _values(field: FieldDescriptor) -> Sequence[Any]:
    if field.enum_type is not None:
        numbers = [value.number for value in field.enum_type.values if value.number != 0]
        # And one that a later version may have.
        return [*numbers, max(numbers, default=0) + 1]
    if field.message_type is not None:
        return [None]
    kinds: Mapping[int, Any] = {
        FieldDescriptor.CPPTYPE_STRING: b"x" if field.type == FieldDescriptor.TYPE_BYTES else "x",
        FieldDescriptor.CPPTYPE_BOOL: True,
    }
    return [kinds.get(field.cpp_type, 7)]


def _give(task: Task, path: Path, value: Any) -> None:
    message: Message = task
    for field in path[:-1]:
        inner = getattr(message, field.name)
        if field.is_repeated:
            message = inner[0] if inner else inner.add()
        else:
            message = inner
            message.SetInParent()
    last = path[-1]
    holder = getattr(message, last.name)
    if last.message_type is not None and last.message_type.GetOptions().map_entry:
        holder["k"] = value or "v"
    elif last.message_type is not None:
        part, number = _ATOMS.get(last.message_type.full_name, ("", 0))
        inner = holder.add() if last.is_repeated else holder
        inner.SetInParent()
        if part:
            setattr(inner, part, number)
    elif last.is_repeated:
        holder.append(value)
    else:
        setattr(message, last.name, value)


def _shown(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(value if known is None else known.name)
    return "" if value is None else str(value)
