"""Flags of `service create` and `service update` that say how a container is run: health, stop, names, privileges."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import HealthConfig, Privileges
from swarmcore.cli.command_line import CliError
from swarmcore.cli.flag_types import DURATION, PAIR, Given, Value, choice, flag, listed, replace, switch
from swarmcore.cli.mounts import mount

HEALTH = ("health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period")
ISOLATION = {
    "default": ContainerSpec.ISOLATION_DEFAULT,
    "process": ContainerSpec.ISOLATION_PROCESS,
    "hyperv": ContainerSpec.ISOLATION_HYPERV,
}
MAX_PROFILE_BYTES = 1024 * 1024
MAX_RETRIES = 2**31 - 1
NO_CHECK = "NONE"


def host(text: str) -> str:
    """Read `name:address` (or `name=address`) into the line of a hosts file."""
    name, _, address = text.partition("=" if "=" in text else ":")
    address = address.strip("[]")
    if not re.fullmatch(r"[^\s:=]+", name) or not re.fullmatch(r"[0-9a-fA-F.:]+(%\w+)?|host-gateway", address):
        raise ValueError(f"{text!r} is not a host (write it like db:10.0.0.5)")
    return f"{address} {name}"


def capability(text: str) -> str:
    """Read `NET_ADMIN`, `cap_net_admin` or `ALL` into the kernel's word."""
    word = text.strip().upper()
    if not re.fullmatch(r"[A-Z0-9_]+", word, re.ASCII):
        raise ValueError(f"{text!r} is not a capability (write it like NET_ADMIN)")
    return word if word == "ALL" or word.startswith("CAP_") else f"CAP_{word}"


def signal_name(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9+-]{1,20}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a signal (write it like SIGTERM)")
    return text


def retries(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > MAX_RETRIES:
        raise ValueError(f"{text!r} is not a whole number between 0 and {MAX_RETRIES}")
    return int(text)


def options() -> Sequence[Any]:
    """The flags, in the order of the help."""
    task, files, health, names, rights = "What runs", "Files and ports", "Health", "Names", "Privileges"
    return [
        flag(task, "--group", multiple=True, help="One more group of the user, by name or gid. Repeatable."),
        flag(task, "--container-label", multiple=True, type=PAIR, help="Labels of each container. Repeatable."),
        flag(task, "--stop-signal", type=Value("SIGNAL", signal_name), help="What asks it to end; SIGTERM by default."),
        flag(task, "--stop-grace-period", type=DURATION, help="From that to the kill; 10s by default."),
        flag(
            task,
            "--with-registry-auth",
            type=None,
            is_flag=True,
            default=None,
            help="Give nodes this machine's `docker login` for the image's registry.",
        ),
        choice(task, "--isolation", ISOLATION, "How Windows keeps containers apart."),
        flag(
            files,
            "--mount",
            multiple=True,
            type=Value("KEY=VALUE,…", mount),
            help="Any mount, like type=volume,source=data,target=/data,readonly: replaces them all. Repeatable.",
        ),
        switch(files, "read-only", "Let it write to its mounts only."),
        flag(health, "--health-cmd", help="A shell command that exits with 0 while it is healthy; empty: the image's."),
        flag(health, "--health-interval", type=DURATION, help="Between two checks; 30s by default."),
        flag(health, "--health-timeout", type=DURATION, help="A check that takes longer has failed; 30s by default."),
        flag(
            health,
            "--health-retries",
            type=Value("N", retries),
            help="Failures in a row that make it unhealthy; 3 by default.",
        ),
        flag(health, "--health-start-period", type=DURATION, help="After the start, in which failures don't count."),
        flag(health, "--health-start-interval", type=DURATION, help="Between two checks in that period."),
        flag(health, "--no-healthcheck", type=None, is_flag=True, default=None, help="No check, not even the image's."),
        flag(names, "--dns", multiple=True, metavar="ADDRESS", help="A name server of its own. Repeatable."),
        flag(names, "--dns-search", multiple=True, metavar="DOMAIN", help="A search domain. Repeatable."),
        flag(names, "--dns-option", multiple=True, metavar="OPTION", help="As in resolv.conf. Repeatable."),
        flag(
            names,
            "--host",
            multiple=True,
            type=Value("NAME:ADDRESS", host),
            help="A line of its hosts file. Repeatable.",
        ),
        flag(
            rights, "--cap-add", multiple=True, type=Value("CAP", capability), help="A capability to add. Repeatable."
        ),
        flag(
            rights, "--cap-drop", multiple=True, type=Value("CAP", capability), help="A capability to drop. Repeatable."
        ),
        flag(rights, "--sysctl", multiple=True, type=PAIR, help="Like net.core.somaxconn=1024. Repeatable."),
        flag(
            rights,
            "--security-opt",
            multiple=True,
            metavar="OPTION",
            help="no-new-privileges, seccomp=unconfined or =FILE, apparmor=unconfined, label=disable or =type:NAME.",
        ),
        flag(rights, "--credential-spec", metavar="KIND://NAME", help="Of Windows: file://, registry:// or config://."),
    ]


def apply(container: ContainerSpec, given: Given) -> None:
    """Change `container` as these flags say; raises CliError where they contradict it or each other."""
    if given["read_only"] is not None:
        container.read_only = given["read_only"]
    if given["pids_limit"] is not None:
        container.pidsLimit = given["pids_limit"]
    if given["stop_signal"] is not None:
        container.stop_signal = given["stop_signal"]
    if given["stop_grace_period"] is not None:
        container.stop_grace_period.CopyFrom(given["stop_grace_period"])
    if given["isolation"] is not None:
        container.isolation = ISOLATION[given["isolation"]]
    for name, items in (
        ("group", container.groups),
        ("host", container.hosts),
        ("cap_add", container.capability_add),
        ("cap_drop", container.capability_drop),
    ):
        wanted = listed(given, name)
        if wanted is not None:
            replace(items, list(dict.fromkeys(wanted)))
    for name, pairs in (("container_label", container.labels), ("sysctl", container.sysctls)):
        wanted = listed(given, name)
        if wanted is not None:
            pairs.clear()
            pairs.update(dict(wanted))
    if given["with_registry_auth"]:
        from swarmcore.cli.registry_auth import registry_auth

        container.pull_options.registry_auth = registry_auth(container.image)
    _apply_names(container, given)
    _apply_health(container, given)
    _apply_privileges(container, given)


def _apply_names(container: ContainerSpec, given: Given) -> None:
    for name, field in (("dns", "nameservers"), ("dns_search", "search"), ("dns_option", "options")):
        wanted = listed(given, name)
        if wanted is not None:
            replace(getattr(container.dns_config, field), wanted)
    if container.HasField("dns_config") and not container.dns_config.ByteSize():
        container.ClearField("dns_config")


def check_together(given: Given) -> None:
    """Raise CliError where a health check is given and switched off."""
    if given["no_healthcheck"]:
        for name in (*HEALTH, "health_start_interval"):
            if given[name] is not None:
                raise CliError(f"--no-healthcheck goes without --{name.replace('_', '-')}: give one of them")


def _apply_health(container: ContainerSpec, given: Given) -> None:
    check_together(given)
    if given["no_healthcheck"]:
        container.healthcheck.CopyFrom(HealthConfig(test=[NO_CHECK]))
        return
    check = HealthConfig()
    check.CopyFrom(container.healthcheck)
    if given["health_cmd"] is not None:
        replace(check.test, ["CMD-SHELL", given["health_cmd"]] if given["health_cmd"] else [])
    for name in ("interval", "timeout", "start_period", "start_interval"):
        length: Duration | None = given[f"health_{name}"]
        if length is not None:
            getattr(check, name).CopyFrom(length)
    if given["health_retries"] is not None:
        check.retries = given["health_retries"]
    if list(check.test) == [NO_CHECK] and check != container.healthcheck:
        raise CliError("the service's health check is switched off: give --health-cmd too")
    if check.ByteSize():
        container.healthcheck.CopyFrom(check)
    else:
        container.ClearField("healthcheck")


def _apply_privileges(container: ContainerSpec, given: Given) -> None:
    wanted = listed(given, "security_opt")
    if wanted is not None:
        privileges = Privileges()
        if container.privileges.HasField("credential_spec"):
            privileges.credential_spec.CopyFrom(container.privileges.credential_spec)
        for text in wanted:
            _security(privileges, text)
        container.privileges.CopyFrom(privileges)
    if given["credential_spec"] is not None:
        container.privileges.ClearField("credential_spec")
        if given["credential_spec"]:
            kind, _, name = given["credential_spec"].partition("://")
            if kind not in ("file", "registry", "config") or not name:
                raise CliError(
                    f"--credential-spec: {given['credential_spec']!r} is none (write it like file://NAME, "
                    "registry://NAME or config://ID)"
                )
            setattr(container.privileges.credential_spec, kind, name)
    if container.HasField("privileges") and not container.privileges.ByteSize():
        container.ClearField("privileges")


def _security(privileges: Privileges, text: str) -> None:
    """One `--security-opt`. Raises CliError."""
    key, equals, value = text.partition("=")
    if key == "no-new-privileges" and value in ("", "true", "false"):
        privileges.no_new_privileges = value != "false"
    elif key == "seccomp" and value == "unconfined":
        privileges.seccomp.mode = Privileges.SeccompOpts.UNCONFINED
    elif key == "seccomp" and value:
        privileges.seccomp.mode = Privileges.SeccompOpts.CUSTOM
        privileges.seccomp.profile = _profile(value)
    elif key == "apparmor" and value == "unconfined":
        privileges.apparmor.mode = Privileges.AppArmorOpts.DISABLED
    elif text in ("label=disable", "label:disable"):
        privileges.selinux_context.disable = True
    elif key == "label" and equals and (match := re.fullmatch(r"(user|role|type|level):(.+)", value)):
        setattr(privileges.selinux_context, match.group(1), match.group(2))
    else:
        raise CliError(
            f"--security-opt: {text!r} is none of no-new-privileges, seccomp=unconfined, seccomp=FILE, "
            "apparmor=unconfined, label=disable, label=user:NAME, role:, type: and level:"
        )


def _profile(path: str) -> bytes:
    """A seccomp profile from a file on this machine. Raises CliError where it is none."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise CliError(f"--security-opt seccomp: {path}: {error.strerror}") from None
    if len(text) > MAX_PROFILE_BYTES:
        raise CliError(f"--security-opt seccomp: {path} has more than {MAX_PROFILE_BYTES} bytes")
    try:
        json.loads(text)
    except ValueError:
        raise CliError(f"--security-opt seccomp: {path} is not JSON") from None
    return text
