"""How flags of services are made and read: the kinds of values, and what an empty list means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.duration_pb2 import Duration

from swarmcore.cli import values
from swarmcore.cli.command_line import Flag

MAX_COUNT = 2**63 - 1
Given = Mapping[str, Any]

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType


class Value(_Type):
    """A flag's value that `parse` reads; its ValueError is the refusal."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if not value and getattr(param, "multiple", False):
            return None
        if any(ord(char) < 32 and char not in "\t\n" for char in value):
            self.fail(f"{value!r} has control characters", param, ctx)
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name


def duration(text: str) -> Duration:
    nanos = values.duration_nanoseconds(text)
    if nanos < 0:
        raise ValueError(f"{text!r} is negative")
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > MAX_COUNT:
        raise ValueError(f"{text!r} is not a whole number between 0 and {MAX_COUNT}")
    return int(text)


def between(low: int, high: int) -> Value:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 9 or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return Value("N", parse)


TEXT = Value("TEXT", str)
COUNT = Value("N", count)
DURATION = Value("DURATION", duration)
SIZE = Value("SIZE", values.memory_bytes)
CPUS = Value("CPUS", values.nano_cpus)
PAIR = Value("KEY=VALUE", values.key_value)


def switch(section: str, name: str, help: str) -> Any:
    """`--NAME` and `--no-NAME`."""
    return click.option(f"--{name}/--no-{name}", cls=Flag, section=section, default=None, help=help)


def flag(section: str, *names: str, type: _Type | None = TEXT, help: str, **more: Any) -> Any:
    return click.option(*names, cls=Flag, section=section, type=type, help=help, **more)


def choice(section: str, name: str, choices: Mapping[str, object], help: str) -> Any:
    return click.option(name, cls=Flag, section=section, type=click.Choice(list(choices)), help=help)


def listed(given: Given, name: str) -> list[Any] | None:
    """The list of a repeatable flag: None where it was not given, empty where it was given empty."""
    items = given.get(name) or ()
    return [item for item in items if item not in (None, "")] if items else None


def replace(repeated: Any, items: Iterable[Any]) -> None:
    copies = list(items)
    del repeated[:]
    repeated.extend(copies)
