"""What a task asks for, checked: every field is honoured or refused by its name."""

from __future__ import annotations

import grp
import math
import os
import pwd
import re
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.unknown_fields import UnknownFieldSet

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.process_pb2 import ProcessSpec
from swarmcore.api.types_pb2 import PortConfig
from swarmcore.plugin.executor import TaskRejectedError
from swarmcore_process_executor import health
from swarmcore_process_executor.cgroups import Cgroups, Limits
from swarmcore_process_executor.folders import work_at
from swarmcore_process_executor.processes import MARKER

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_GRACE_SECONDS = 10.0
MAX_GRACE_SECONDS = 3600.0
TYPE_NAME = ProcessSpec.DESCRIPTOR.full_name
ULIMITS = {
    name.removeprefix("RLIMIT_").lower(): int(getattr(resource, name))
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
"""Names as containers have them."""
MAX_ULIMIT = 2**63 - 1
MAX_DIGITS = 20
MAX_SHOWN = 200
_TASK_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who the process is."""

    uid: int
    gid: int
    groups: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that the launcher needs."""

    program: str
    arguments: Sequence[str]
    environment: Sequence[str]
    folder: str
    user: User | None
    cgroups: Sequence[Path] = ()
    """To join."""
    ulimits: Sequence[tuple[str, int, int]] = ()
    """Name, soft and hard."""

    def encode(self) -> bytes:
        """As `launcher.py` reads it: fields that end with a zero byte, which none of them can hold."""
        user = self.user
        who = [str(user.uid), str(user.gid), ",".join(map(str, user.groups))] if user is not None else ["", "", ""]
        groups = "\n".join(map(str, self.cgroups))
        ulimits = ",".join(f"{name}:{ULIMITS[name]}:{soft}:{hard}" for name, soft, hard in self.ulimits)
        fields = [
            *who,
            groups,
            ulimits,
            self.folder,
            self.program,
            str(len(self.arguments)),
            *self.arguments,
            *self.environment,
        ]
        return b"\0".join(os.fsencode(field) for field in fields)


def parse(task: Task) -> ProcessSpec:
    """Read the payload of a task. Raises TaskRejectedError with the name of the field that can't be honoured."""
    if _TASK_ID.fullmatch(task.id) is None:
        raise TaskRejectedError(f"task.id {task.id!r} is no name for a folder")
    generic = task.spec.generic
    if generic.kind != "process":
        raise TaskRejectedError(f"task.generic.kind {generic.kind!r} is not 'process'")
    if not generic.payload.Is(ProcessSpec.DESCRIPTOR):
        raise TaskRejectedError(f"task.generic.payload has type {generic.payload.type_url!r}: {TYPE_NAME} is expected")
    spec = ProcessSpec()
    try:
        generic.payload.Unpack(spec)
    except Exception as error:
        raise TaskRejectedError(f"task.generic.payload is no {TYPE_NAME}") from error
    for message in (spec, spec.health, *spec.ulimits):
        unknown = UnknownFieldSet(message)
        if len(unknown):
            raise TaskRejectedError(f"{TYPE_NAME}: this version does not know its field {unknown[0].field_number}")
    _check(spec)
    _refuse_unsupported(task)
    return spec


def _check(spec: ProcessSpec) -> None:
    if not spec.command or not spec.command[0]:
        raise TaskRejectedError("process.command is empty")
    for name, values in (
        ("command", spec.command),
        ("args", spec.args),
        ("env", spec.env),
        ("dir", [spec.dir]),
        ("user", [spec.user]),
    ):
        if any("\0" in value for value in values):
            raise TaskRejectedError(f"process.{name} has a zero byte")
    for entry in spec.env:
        if not entry.partition("=")[0] or "=" not in entry:
            raise TaskRejectedError(f"process.env {entry.partition('=')[0]!r} is not NAME=VALUE")
    if spec.pids_limit < 0:
        raise TaskRejectedError("process.pids_limit cannot be negative")
    for limit in spec.ulimits:
        if limit.name not in ULIMITS:
            raise TaskRejectedError(f"process.ulimits: {limit.name!r} is none of {', '.join(sorted(ULIMITS))}")
        if not all(-1 <= value <= MAX_ULIMIT for value in (limit.soft, limit.hard)):
            raise TaskRejectedError(f"process.ulimits: {limit.name} cannot be negative, except -1 for no limit")
        if limit.hard != -1 and not 0 <= limit.soft <= limit.hard:
            raise TaskRejectedError(f"process.ulimits: {limit.name} has a soft limit above the hard one")
    stop_signal(spec)
    grace_seconds(spec)
    health.parse(spec.health)


def _refuse_unsupported(task: Task) -> None:
    limits = task.spec.resources.limits
    if limits.generic:
        raise TaskRejectedError("task.resources.limits.generic: generic resources are counted, and limit nothing")
    for field, value in (("nano_cpus", limits.nano_cpus), ("memory_bytes", limits.memory_bytes)):
        if value < 0:
            raise TaskRejectedError(f"task.resources.limits.{field} cannot be negative")
    if task.spec.resources.HasField("swap_bytes") or task.spec.resources.HasField("memory_swappiness"):
        raise TaskRejectedError("task.resources: plain processes have no swap settings")
    if task.spec.networks or task.networks:
        raise TaskRejectedError("task.networks: plain processes use the machine's own network")
    if task.spec.resource_references:
        raise TaskRejectedError("task.resource_references: plain processes get no secrets and configs")
    # Not `task.log_driver`: a default of the cluster is for those tasks that can have it.
    driver = task.spec.log_driver
    if driver.name or driver.options:
        raise TaskRejectedError(f"task.log_driver {driver.name!r}: the output of processes goes to files")
    for port in task.endpoint.ports:
        if port.publish_mode == PortConfig.HOST and port.published_port != port.target_port:
            raise TaskRejectedError(
                f"endpoint.ports: port {port.target_port} can't be published as {port.published_port}: "
                "plain processes use the machine's own network"
            )


def stop_signal(spec: ProcessSpec) -> signal.Signals:
    """The signal that asks the process to end."""
    text = spec.stop_signal
    if not text:
        return signal.SIGTERM
    try:
        if _is_number(text):
            return signal.Signals(int(text))
        name = text.upper()
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except (KeyError, ValueError):
        raise TaskRejectedError(f"process.stop_signal {text!r} is no signal") from None


def grace_seconds(spec: ProcessSpec) -> float:
    """Seconds between the stop signal and SIGKILL."""
    if not spec.HasField("stop_grace_seconds"):
        return DEFAULT_GRACE_SECONDS
    seconds = spec.stop_grace_seconds
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_GRACE_SECONDS:
        raise TaskRejectedError(f"process.stop_grace_seconds {seconds:g} is not between 0 and {MAX_GRACE_SECONDS:g}")
    return float(seconds)


def limits_of(task: Task, spec: ProcessSpec) -> Limits:
    limits = task.spec.resources.limits
    return Limits(nano_cpus=limits.nano_cpus, memory_bytes=limits.memory_bytes, pids=spec.pids_limit)


def ulimits_of(task: Task, spec: ProcessSpec, cgroups: Cgroups) -> list[tuple[str, int, int]]:
    """The task's own, and one for its memory where there is no group for it: then each process has so much.

    Raises TaskRejectedError with the name of a limit that only groups can keep, where there are none.
    """
    limits = limits_of(task, spec)
    for field, controller in (("task.resources.limits.nano_cpus", "cpu"), ("process.pids_limit", "pids")):
        if controller in limits.controllers - cgroups.places.keys():
            raise TaskRejectedError(
                f"{field}: this machine has no cgroup controller {controller!r} that swarmd may use"
            )
    found = [(limit.name, limit.soft, limit.hard) for limit in spec.ulimits]
    if limits.memory_bytes and "memory" not in cgroups.places:
        found.append(("data", limits.memory_bytes, limits.memory_bytes))
    return found


def resolve(task: Task, spec: ProcessSpec, user: User | None, work: Path, cgroups: Cgroups) -> Launch:
    """Look up folder and program on this machine. Raises TaskRejectedError in the system's words."""
    environment = {"PATH": DEFAULT_PATH}
    for entry in spec.env:
        name, _, value = entry.partition("=")
        environment[name] = value
    environment[MARKER] = task.id
    folder = work_at(work, spec.dir, user)
    return Launch(
        program=_program(spec.command[0], environment["PATH"], folder),
        arguments=[*spec.command, *spec.args],
        environment=[f"{name}={value}" for name, value in environment.items()],
        folder=str(folder),
        user=user,
        cgroups=cgroups.folders(task.id, limits_of(task, spec).controllers | {"pids"}),
        ulimits=ulimits_of(task, spec, cgroups),
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < MAX_DIGITS


def _program(command: str, path: str, folder: Path) -> str:
    reason = "No such file or directory"
    places = [""] if "/" in command else [place or "." for place in path.split(os.pathsep)]
    for place in places:
        found = folder / place / command
        try:
            if found.is_dir():
                reason = "Is a directory"
            elif os.access(found, os.X_OK):
                return str(found)
            elif found.exists():
                reason = "Permission denied"
        except OSError as error:
            # Such as a name that is too long.
            reason = str(error.strerror)
    raise TaskRejectedError(f"process.command: {reason}: {command[:MAX_SHOWN]!r}")


def user_of(spec: ProcessSpec) -> User | None:
    """Look the user up on this machine; None: whoever swarmd is. Raises TaskRejectedError."""
    if not spec.user:
        return None
    name, _, group = spec.user.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if _is_number(name) else pwd.getpwnam(name)
        uid, gid, groups = entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except (KeyError, OverflowError):
        if not _is_number(name) or int(name) >= 2**32 - 1:
            raise TaskRejectedError(f"process.user: no such user: {name[:MAX_SHOWN]!r}") from None
        uid, gid, groups = int(name), int(name), [int(name)]
    if group:
        try:
            gid = int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
        except KeyError:
            raise TaskRejectedError(f"process.user: no such group: {group[:MAX_SHOWN]!r}") from None
        if gid >= 2**32 - 1:
            raise TaskRejectedError(f"process.user: no such group: {group!r}")
        groups = [gid]
    return User(uid=uid, gid=gid, groups=groups)
