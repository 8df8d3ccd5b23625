"""Whether this core satisfies what a distribution says it requires of it.

Understands release numbers and pre-releases as far as a requirement on one package needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")
_CLAUSE = re.compile(r"^(~=|===|==|!=|<=|>=|<|>)\s*([0-9][^\s]*)$")
_VERSION = re.compile(r"^v?(\d+(?:\.\d+)*)[._-]?(?:(dev|a|b|rc|alpha|beta|c|pre|post)[._-]?(\d*))?")
_STAGES = {"dev": -4, "a": -3, "alpha": -3, "b": -2, "beta": -2, "rc": -1, "c": -1, "pre": -1, "post": 1}

_Key = tuple[tuple[int, ...], int, int]


def normal_name(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements_on(package: str, requires: Iterable[str]) -> list[str]:
    """The version clauses (`>=0.1,<2`) that `requires` puts on `package`, those of extras left out."""
    clauses = []
    for line in requires:
        match = _REQUIREMENT.match(line)
        if match is None or normal_name(match[1]) != normal_name(package):
            continue
        if match[3] and "extra" in match[3]:
            continue
        if match[2].strip():
            clauses.append(match[2].strip())
    return clauses


def is_satisfied(version: str, clauses: str) -> bool:
    """Whether `version` meets every comma-separated clause. A clause that can't be read is not met."""
    return all(_meets(version, clause.strip()) for clause in clauses.split(",") if clause.strip())


def _key(version: str) -> _Key:
    match = _VERSION.match(version)
    if match is None:
        return (0,), 0, 0
    release = [int(part) for part in match[1].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    stage = _STAGES[match[2]] if match[2] else 0
    return tuple(release), stage, int(match[3] or 0) if match[2] else 0


def _release(version: str) -> list[int]:
    match = _VERSION.match(version)
    return [int(part) for part in match[1].split(".")] if match else [0]


def _has_prefix(version: str, prefix: list[int]) -> bool:
    release = _release(version)
    release += [0] * (len(prefix) - len(release))
    return release[: len(prefix)] == prefix


def _meets(version: str, clause: str) -> bool:
    match = _CLAUSE.match(clause)
    if match is None:
        return False
    operator, wanted = match[1], match[2]
    if wanted.endswith(".*"):
        same = _has_prefix(version, _release(wanted[:-2]))
        return {"==": same, "!=": not same}.get(operator, False)
    if operator == "~=":
        return _key(version) >= _key(wanted) and _has_prefix(version, _release(wanted)[:-1])
    have, want = _key(version), _key(wanted)
    return {
        "==": have == want,
        "===": version == wanted,
        "!=": have != want,
        "<=": have <= want,
        ">=": have >= want,
        "<": have < want,
        ">": have > want,
    }[operator]
