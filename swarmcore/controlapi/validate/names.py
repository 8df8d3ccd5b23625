"""Names of objects (SwarmKit: 2.1)."""

from __future__ import annotations

import re

from swarmcore.api.types_pb2 import Annotations
from swarmcore.controlapi.validate.bounds import brief
from swarmcore.errors import InvalidArgumentError

MAX_NAME = 63
MAX_SECRET_NAME = 64
MAX_FREE_NAME = 255

_NAME = re.compile(r"[A-Za-z0-9](?:[-_]*[A-Za-z0-9])*", re.ASCII)
_SECRET_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)


def check_annotations(annotations: Annotations) -> None:
    """The name of a service or a network."""
    name = annotations.name
    if not name:
        raise InvalidArgumentError("meta: name must be provided: annotations.name is empty")
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"name must be valid as a DNS name component: annotations.name {brief(name)!r} "
            "may have letters and digits, with - and _ between them"
        )
    if len(name) > MAX_NAME:
        raise InvalidArgumentError(f"name must be {MAX_NAME} characters or fewer: annotations.name has {len(name)}")


def check_secret_name(name: str, field: str = "annotations.name") -> None:
    """The name of a secret or a config."""
    if not 1 <= len(name) <= MAX_SECRET_NAME or not _SECRET_NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"invalid name: {field} {brief(name)!r} must have 1 to {MAX_SECRET_NAME} characters from "
            "[a-zA-Z0-9-_.], starting and ending with a letter or digit"
        )


def check_free_name(name: str, field: str = "annotations.name") -> None:
    """A name that may be any text on one line: nodes, volumes, extensions, resources."""
    if not name:
        raise InvalidArgumentError(f"{field} must be provided")
    if len(name) > MAX_FREE_NAME or not name.isprintable():
        raise InvalidArgumentError(f"{field} {brief(name)!r} must be printable, of at most {MAX_FREE_NAME} characters")
