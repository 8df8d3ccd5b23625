"""Who ran what beside which task: one JSON object a line, in a file of this manager that only its user may read."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from swarmcore.errors import FailedPreconditionError

MAX_BYTES: Final = 8 * 1024 * 1024
KEPT: Final = 4
"""Files of earlier records: audit.log.1 is the newest of them."""
MAX_ARGUMENTS: Final = 64
MAX_ARGUMENT: Final = 256
HIDDEN: Final = "…"

_SECRET = re.compile(r"pass|secret|token|key|pwd|credential|auth|cookie|session", re.IGNORECASE)
_NAMED = r"[\w.\-]{0,40}(?:pass|secret|token|key|pwd|credential|auth|cookie|session)[\w.\-]{0,40}"
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"';|&]+)+"""
_WITHIN: Final = (
    # In a line for a shell: NAME=value and --name=value; --name value; a header's value; mysql's -pvalue.
    re.compile(rf"(?P<kept>\b{_NAMED}=){_VALUE}", re.IGNORECASE),
    re.compile(rf"(?P<kept>(?<!\S)--?{_NAMED}\s+)(?!-){_VALUE}", re.IGNORECASE),
    re.compile(r"(?P<kept>\b(?:(?:proxy-)?authorization|cookie|x-[\w-]*(?:token|key)):\s*)[^\"'\n]+", re.IGNORECASE),
    re.compile(r"(?P<kept>\b(?:mysql|mariadb)[\w-]*\b[^;|&\n]*?\s-p)[^\s;|&]+"),
)
_SHORT_PASSWORD: Final = re.compile(r"mysql|mariadb")
MAX_LOOKED_AT: Final = 512
"""Of one argument; what is not looked at is not shown either."""
_KNOWN = re.compile(r"SWMTKN-\S+|SWMKEY-\S+|SWMPSK-\S+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


class Audit(Protocol):
    """Where it is written down what operators do to tasks."""

    def record(self, event: str, **facts: object) -> None:
        """Write it down. Raises FailedPreconditionError where that can't be done: then nothing is to be done at all."""
        ...


class AuditLog:
    """Satisfies `Audit`: a file that is begun anew when it is full."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, event: str, **facts: object) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "event": event, **facts}, ensure_ascii=False) + "\n"
        try:
            self._maybe_rotate()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(descriptor, 0o600)
                data = line.encode(errors="replace")
                if os.write(descriptor, data) != len(data):
                    raise OSError("the disk is full")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FailedPreconditionError(
                f"the audit log {str(self._path)!r} of the leading manager can't be written "
                f"({error.strerror or error}), and nothing is run that is not recorded"
            ) from error

    def _maybe_rotate(self) -> None:
        try:
            if self._path.stat().st_size < MAX_BYTES:
                return
        except FileNotFoundError:
            return
        for number in range(KEPT, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)


def shown_command(command: Sequence[str]) -> list[str]:
    """A command as it may be written down: long ones cut, and what looks like a secret left out."""
    shown = []
    hide_next = False
    has_short_password = bool(command) and bool(_SHORT_PASSWORD.match(command[0].rpartition("/")[2]))
    for argument in command[:MAX_ARGUMENTS]:
        name, equals, _ = argument.partition("=")
        if hide_next and not argument.startswith("-"):
            shown.append(HIDDEN)
            hide_next = False
            continue
        is_secret = bool(_SECRET.search(name)) and len(name) < 64 and " " not in name
        hide_next = is_secret and argument.startswith("-") and not equals
        if is_secret and equals:
            argument = f"{name}={HIDDEN}"
        argument = _without_secrets(argument)
        if has_short_password and argument.startswith("-p") and len(argument) > 2:
            argument = f"-p{HIDDEN}"
        shown.append(argument if len(argument) <= MAX_ARGUMENT else argument[:MAX_ARGUMENT] + HIDDEN)
    if len(command) > MAX_ARGUMENTS:
        shown.append(f"{HIDDEN} and {len(command) - MAX_ARGUMENTS} more")
    return shown


def _without_secrets(argument: str) -> str:
    """An argument, which may be a line for a shell, without what looks like a secret in it."""
    cut = argument[:MAX_LOOKED_AT]
    for pattern in _WITHIN:
        cut = pattern.sub(lambda found: found["kept"] + HIDDEN, cut)
    return _KNOWN.sub(HIDDEN, cut)


def shown_names(env: Sequence[str]) -> list[str]:
    """Names of environment variables; never what they hold."""
    return [entry.partition("=")[0][:MAX_ARGUMENT] for entry in env[:MAX_ARGUMENTS]]


Facts = Mapping[str, object]
