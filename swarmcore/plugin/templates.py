"""Templates such as `{{.Node.Hostname}}` in a container's spec and in secrets and configs (SwarmKit: 13.1).

A part of Go's text/template: text, fields, `index`, `join`, `print`, quoted strings, numbers, parentheses, pipes and
trimmed braces. Whatever else Go allows is refused by name. The manager makes a dry run with `expand` before anything
is stored; executors expand for a real task, see `task_templates.py`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

MAX_ACTIONS = 10_000
"""In one container spec."""
MAX_EXPANDED_CHARACTERS = 2 * 1024 * 1024
"""Of all templates of one container spec together."""
MAX_NESTING = 16
MAX_TEXT_CHARACTERS = 128 * 1024
"""Of one field; Linux takes no longer one in an argument or an environment entry."""
MAX_SHOWN_CHARACTERS = 200

Value: TypeAlias = "str | int | Mapping[str, Value]"
Function: TypeAlias = Callable[[tuple[Value, ...]], Value]

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<field>(?:\.[A-Za-z_]\w*)+)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<number>[0-9]+)
      | (?P<mark>[()|])""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class TemplateError(Exception):
    """Not a template that can be expanded. One line, which never repeats what stands outside of its braces."""


@dataclass(slots=True)
class Budget:
    """What the templates of one spec may still cost."""

    actions: int = MAX_ACTIONS
    characters: int = MAX_EXPANDED_CHARACTERS

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise TemplateError(f"the templates expand to more than {MAX_EXPANDED_CHARACTERS} characters")

    def begin_action(self) -> None:
        self.actions -= 1
        if self.actions < 0:
            raise TemplateError(f"there are more than {MAX_ACTIONS} templates")


def expand(
    text: str,
    data: Mapping[str, Value],
    budget: Budget | None = None,
    *,
    functions: Mapping[str, Function] | None = None,
    max_characters: int = MAX_TEXT_CHARACTERS,
) -> str:
    """`text` with every `{{…}}` replaced; raises TemplateError. `functions` come on top of index, join and print."""
    if "{{" not in text:
        return text
    budget = Budget() if budget is None else budget
    known = _FUNCTIONS if functions is None else {**_FUNCTIONS, **functions}
    parts: list[str] = []
    length = 0
    position, trim = 0, False
    while True:
        start = text.find("{{", position)
        plain = text[position:] if start < 0 else text[position:start]
        if trim:
            plain = plain.lstrip(" \t\r\n")
        if start < 0:
            parts.append(plain)
            break
        end = _end_of_action(text, start + 2)
        inner = text[start + 2 : end]
        if inner.startswith("-") and inner[1:2].isspace():
            plain = plain.rstrip(" \t\r\n")
            inner = inner[1:]
        trim = inner.endswith("-") and inner[-2:-1].isspace()
        if trim:
            inner = inner[:-1]
        parts.append(plain)
        budget.begin_action()
        if not (inner.startswith("/*") and inner.endswith("*/")):
            value = _text(_Action(inner, data, budget, known).value())
            budget.spend(len(value))
            length += len(value)
            if length > max_characters:
                raise TemplateError(f"it expands to more than {max_characters} characters")
            parts.append(value)
        position = end + 2
    return "".join(parts)


_QUOTED_OR_END = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|\}\}')


def _end_of_action(text: str, start: int) -> int:
    """Where the closing braces stand; those inside of a quoted string don't count."""
    if text.startswith("/*", start):
        end = text.find("*/}}", start)
        return end + 2 if end >= 0 else _unclosed()
    for match in _QUOTED_OR_END.finditer(text, start):
        if match[0] == "}}":
            return match.start()
    return _unclosed()


def _unclosed() -> int:
    raise TemplateError("unclosed action: '{{' without '}}'")


class _Action:
    """What stands between one pair of braces: parsed and worked out in one go, since nothing here has an effect."""

    def __init__(
        self, source: str, data: Mapping[str, Value], budget: Budget, functions: Mapping[str, Function]
    ) -> None:
        self._data = data
        self._budget = budget
        self._functions = functions
        self._tokens = _tokens(source)
        self._at = 0
        self._depth = 0

    def value(self) -> Value:
        value = self._pipeline()
        if self._at < len(self._tokens):
            raise TemplateError(f"unexpected {brief(self._tokens[self._at][1])!r}")
        return value

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _take(self, mark: str) -> bool:
        if self._peek() != ("mark", mark):
            return False
        self._at += 1
        return True

    def _pipeline(self) -> Value:
        value = self._command(())
        while self._take("|"):
            # In Go, what is piped becomes the last argument.
            value = self._command((value,))
        return value

    def _command(self, piped: tuple[Value, ...]) -> Value:
        kind, text = self._peek()
        if kind == "word":
            self._at += 1
            function = self._functions.get(text)
            if function is None:
                raise TemplateError(
                    f"function {brief(text)!r} is not supported: there are {', '.join(self._functions)}"
                )
            value = function((*self._operands(), *piped))
            if isinstance(value, str):
                self._budget.spend(len(value))
            return value
        operands = self._operands()
        if not operands:
            raise TemplateError("missing value: write a field such as {{.Node.Hostname}}")
        if len(operands) > 1 or piped:
            raise TemplateError(f"only a function takes arguments: {', '.join(self._functions)}")
        return operands[0]

    def _operands(self) -> list[Value]:
        operands: list[Value] = []
        while True:
            kind, text = self._peek()
            if kind == "field":
                operands.append(_field(self._data, text))
            elif kind == "string":
                operands.append(_unquote(text))
            elif kind == "raw":
                operands.append(text[1:-1])
            elif kind == "number":
                operands.append(_number(text))
            elif (kind, text) == ("mark", "("):
                operands.append(self._parenthesis())
                continue
            else:
                return operands
            self._at += 1

    def _parenthesis(self) -> Value:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise TemplateError("parentheses are nested too deeply")
        self._at += 1
        value = self._pipeline()
        if not self._take(")"):
            raise TemplateError("unclosed parenthesis: '(' without ')'")
        self._depth -= 1
        return value


def _tokens(source: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position, last_end = 0, 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise TemplateError(
                f"unexpected {brief(source[position])!r}: only fields, index, join and print are supported"
            )
        position = match.end()
        kind = match.lastgroup or ""
        if kind == "space":
            continue
        if tokens and match.start() == last_end and kind != "mark" and tokens[-1][1] not in ("(", "|"):
            raise TemplateError(f"unexpected {brief(match[0])!r}: put a space before it")
        tokens.append((kind, match[0]))
        last_end = position
    return tokens


def _field(data: Mapping[str, Value], path: str) -> Value:
    value: Value = data
    for name in path[1:].split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise TemplateError(f"no field {brief(path)!r}: see Service, Node and Task")
        value = value[name]
    return value


def _unquote(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise TemplateError("unknown escape in a quoted string: use backquotes")
        return _ESCAPES[match[1]]

    return _ESCAPE.sub(replace, text[1:-1])


def _number(text: str) -> int:
    if len(text) > 18:
        raise TemplateError("a number is too large")
    return int(text)


def _text(value: Value) -> str:
    if isinstance(value, Mapping):
        raise TemplateError("a whole group of fields is no text: name one of its fields")
    return str(value)


def _index(arguments: tuple[Value, ...]) -> Value:
    if not arguments:
        raise TemplateError("index needs a map, and a key")
    value = arguments[0]
    for key in arguments[1:]:
        if not isinstance(value, Mapping) or not isinstance(key, str):
            raise TemplateError('index takes labels and a key: {{index .Service.Labels "key"}}')
        # As in Go: a missing key of a map is an empty text here, and an error as a field.
        value = value.get(key, "")
    return value


def _join(arguments: tuple[Value, ...]) -> Value:
    if not arguments:
        raise TemplateError("join needs a separator")
    separator, *parts = (_text(argument) for argument in arguments)
    if len(separator) * len(parts) + sum(map(len, parts)) > MAX_TEXT_CHARACTERS:
        raise TemplateError(f"join makes more than {MAX_TEXT_CHARACTERS} characters")
    return separator.join(parts)


def _print(arguments: tuple[Value, ...]) -> Value:
    texts = [_text(argument) for argument in arguments]
    if sum(map(len, texts)) > MAX_TEXT_CHARACTERS:
        raise TemplateError(f"print makes more than {MAX_TEXT_CHARACTERS} characters")
    return "".join(texts)


_FUNCTIONS: Mapping[str, Function] = {"index": _index, "join": _join, "print": _print}


def brief(text: str) -> str:
    """`text` for an error message: on one line, printable, and no longer than a line can hold."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:MAX_SHOWN_CHARACTERS])
    return shown if len(text) <= MAX_SHOWN_CHARACTERS else f"{shown}…"
