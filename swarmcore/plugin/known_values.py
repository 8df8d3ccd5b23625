"""Whether this version knows the enum values of a message that another one made. Pure."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_ENUM = FieldDescriptor.CPPTYPE_ENUM
_MESSAGE = FieldDescriptor.CPPTYPE_MESSAGE


def unknown_value(message: Message, path: str) -> str | None:
    """The first field, below `path`, whose enum value this version does not know, and the value; None where all are.

    Such a value comes from a manager of a later version. Whoever compared it with those he knows would take it for the
    default without a word.
    """
    for field, value in message.ListFields():
        name = f"{path}.{field.name}"
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            continue
        for item in value if field.is_repeated else (value,):
            if field.cpp_type == _ENUM:
                if field.enum_type is not None and item not in field.enum_type.values_by_number:
                    return f"{name}: this version does not know the value {item}"
            elif field.cpp_type == _MESSAGE and (found := unknown_value(item, name)) is not None:
                return found
    return None
