"""The flags of `swarmctl service` for a service of plain processes (`--runtime process`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.process_pb2 import ProcessSpec, ProcessUlimit
from swarmcore.api.specs_pb2 import TaskSpec
from swarmcore.cli.command_line import CliError
from swarmcore.cli.container_flags import check_together
from swarmcore.cli.flag_types import listed

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
    "mount",
    "read_only",
    "group",
    "container_label",
    "isolation",
    "with_registry_auth",
    "dns",
    "dns_search",
    "dns_option",
    "host",
    "cap_add",
    "cap_drop",
    "sysctl",
    "security_opt",
    "credential_spec",
    "health_start_interval",
    "memory_swap",
    "memory_swappiness",
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
    if given.get("stop_signal") is not None:
        spec.stop_signal = given["stop_signal"]
    if given.get("stop_grace_period") is not None:
        spec.stop_grace_seconds = _seconds(given["stop_grace_period"])
    if given.get("pids_limit") is not None:
        spec.pids_limit = given["pids_limit"]
    ulimits = listed(given, "ulimit")
    if ulimits is not None:
        del spec.ulimits[:]
        spec.ulimits.extend(ProcessUlimit(name=each.name, soft=each.soft, hard=each.hard) for each in ulimits)
    _apply_health(spec, given)
    if not spec.command and not spec.args:
        raise CliError("a process service needs --command: the program to run, a word each time")
    task.generic.kind = KIND
    task.generic.payload.Pack(spec)


def _apply_health(spec: ProcessSpec, given: Mapping[str, Any]) -> None:
    check_together(given)
    if given["no_healthcheck"] or given["health_cmd"] == "":
        spec.ClearField("health")
        return
    if given["health_cmd"] is not None:
        del spec.health.command[:]
        spec.health.command.extend(["/bin/sh", "-c", given["health_cmd"]])
    for name in ("interval", "timeout", "start_period"):
        if given[f"health_{name}"] is not None:
            setattr(spec.health, f"{name}_seconds", _seconds(given[f"health_{name}"]))
    if given["health_retries"] is not None:
        spec.health.retries = given["health_retries"]
    if spec.HasField("health") and not spec.health.command:
        raise CliError("a process has no health check of its own: give --health-cmd too")


def _seconds(duration: Duration) -> float:
    return float(duration.seconds + duration.nanos / 1e9)
