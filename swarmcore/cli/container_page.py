"""The part of a service's page that says how its containers are run."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import HealthConfig, Privileges
from swarmcore.cli.text import Page, duration, enum_name


def add_settings(page: Page, container: ContainerSpec) -> None:
    """What was asked for besides image, command and environment; nothing for what was not."""
    if container.groups:
        page.add("Groups", " ".join(container.groups))
    if container.labels:
        page.listing("Container Labels", dict(container.labels))
    switches = (
        ("tty", container.tty),
        ("open-stdin", container.open_stdin),
        ("init", container.init.value),
        ("read-only", container.read_only),
    )
    page.add("Switches", " ".join(name for name, is_on in switches if is_on))
    page.add("Stop Signal", container.stop_signal)
    if container.HasField("stop_grace_period"):
        page.add("Stop Grace", _duration(container.stop_grace_period))
    page.add("Processes", f"at most {container.pidsLimit}" if container.pidsLimit > 0 else "")
    if container.isolation:
        page.add("Isolation", enum_name(ContainerSpec.Isolation, container.isolation).lower())
    if container.HasField("healthcheck"):
        _health(page, container.healthcheck)
    for title, items in (
        ("DNS", container.dns_config.nameservers),
        ("DNS Search", container.dns_config.search),
        ("DNS Options", container.dns_config.options),
    ):
        page.add(title, " ".join(items))
    if container.hosts:
        page.listing("Hosts", list(container.hosts))
    if container.sysctls:
        page.listing("Sysctls", dict(container.sysctls))
    if container.HasField("privileges"):
        page.add("Security", ", ".join(_privileges(container.privileges)))


def _health(page: Page, check: HealthConfig) -> None:
    with page.section("Health"):
        test = list(check.test)
        if test == ["NONE"]:
            page.add("Check", "switched off")
            return
        page.add("Check", " ".join(test[1:] if test[:1] in (["CMD"], ["CMD-SHELL"]) else test) or "the image's")
        for title, length in (
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("Start Period", check.start_period),
            ("Start Interval", check.start_interval),
        ):
            if length.seconds or length.nanos:
                page.add(title, _duration(length))
        page.add("Retries", check.retries or None)


def _privileges(privileges: Privileges) -> list[str]:
    words = ["no-new-privileges"] if privileges.no_new_privileges else []
    if privileges.seccomp.mode:
        words.append(f"seccomp={enum_name(Privileges.SeccompOpts.SeccompMode, privileges.seccomp.mode).lower()}")
    if privileges.apparmor.mode:
        words.append("apparmor=unconfined")
    selinux = privileges.selinux_context
    if selinux.disable:
        words.append("label=disable")
    for name in ("user", "role", "type", "level"):
        if value := getattr(selinux, name):
            words.append(f"label={name}:{value}")
    if kind := privileges.credential_spec.WhichOneof("source"):
        words.append(f"{kind}://{getattr(privileges.credential_spec, kind)}")
    return words


def _duration(length: Duration) -> str:
    return duration(length.seconds, length.nanos)
