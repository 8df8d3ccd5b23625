"""Objects of the control API as JSON: enums by name, numbers as numbers, times in RFC 3339, every plain field present.

Other than protobuf's own JSON, which turns 64-bit numbers into text and leaves out what is zero: a script that asks
for `.spec.availability` gets an answer for ACTIVE too.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from swarmcore.cli.text import duration, moment

HIDDEN = "(hidden)"


def to_json(value: Any) -> str:
    """Text of a message, or of a list or dict that holds messages."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Messages as dicts."""
    if isinstance(value, Message):
        return _message(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _message(message: Any) -> Any:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        whole = moment(message)
        return f"{whole[:-1]}.{message.nanos:09d}Z" if whole and message.nanos else whole or None
    if name == "google.protobuf.Duration":
        return duration(message.seconds, message.nanos)
    if name.startswith("google.protobuf.") and name.endswith("Value"):
        return message.value
    if name == "google.protobuf.Any":
        return _any(message)
    if name == "docker.swarmkit.v1.ContainerSpec.PullOptions":
        # A login to a registry: who reads services is not told the password.
        return {"registry_auth": HIDDEN if message.registry_auth else ""}
    result = {}
    for field in message.DESCRIPTOR.fields:
        if not field.has_presence or message.HasField(field.name):
            result[field.name] = _field(field, getattr(message, field.name))
    return result


def _field(field: FieldDescriptor, value: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        of = entry.fields_by_name["value"]
        return {str(key): _scalar(of, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_scalar(field, item) for item in value]
    return _scalar(field, value)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return _message(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = ""
        return text if text.startswith("-----BEGIN ") else base64.b64encode(value).decode()
    return value


def _any(message: Any) -> Any:
    from google.protobuf import symbol_database

    try:
        held = symbol_database.Default().GetSymbol(message.TypeName())()
        message.Unpack(held)
    except (KeyError, ValueError):
        return {"@type": message.type_url, "value": base64.b64encode(message.value).decode()}
    return {"@type": message.type_url, **_message(held)}
