"""The flags of `swarmctl service` for a service of plain processes (`--runtime process`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.cli.command_line import CliError

KIND = "process"
CONTAINER_ONLY = (
    "image",
    "hostname",
    "tty",
    "open_stdin",
    "init",
    "bind",
    "volume",
    "tmpfs",
    "npipe",
    "network",
    "ulimit",
    "oom_score_adj",
    "secret",
    "config",
    "add_secret",
    "add_config",
    "rm_secret",
    "rm_config",
    "add_capability",
    "rm_capability",
)


def apply_process(task: TaskSpec, given: Mapping[str, Any]) -> None:
    """Change the process that `task` describes; raises CliError for a flag that only a container has."""
    from swarmcore.api.process_pb2 import ProcessSpec

    for name in CONTAINER_ONLY:
        if given.get(name) not in (None, (), False):
            raise CliError(f"--{name.replace('_', '-')} is for containers only: a process service has no such thing")
    spec = ProcessSpec()
    if task.generic.payload.value:
        task.generic.payload.Unpack(spec)
    for name in ("command", "args", "env"):
        if given.get(name):
            field = getattr(spec, name)
            del field[:]
            field.extend(item for item in given[name] if item not in (None, ""))
    for name in ("dir", "user"):
        if given.get(name) is not None:
            setattr(spec, name, given[name])
    if not spec.command and not spec.args:
        raise CliError("a process service needs --command: the program to run, a word each time")
    task.generic.kind = KIND
    task.generic.payload.Pack(spec)
