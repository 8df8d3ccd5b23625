"""Each rule for the spec of a service: what is refused, in which words, and in which order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from swarmcore.api.specs_pb2 import ContainerSpec, EndpointSpec, ServiceSpec
from swarmcore.api.types_pb2 import (
    Annotations,
    ConfigReference,
    DiscreteGenericResource,
    FileTarget,
    GenericResource,
    Mount,
    NamedGenericResource,
    PlacementPreference,
    PortConfig,
    RuntimeTarget,
    SecretReference,
    SpreadOver,
)
from swarmcore.controlapi.validate.bounds import check_request
from swarmcore.controlapi.validate.service import check_service_spec
from swarmcore.errors import InvalidArgumentError, UnimplementedError

Change = Callable[[ServiceSpec], object]


def valid() -> ServiceSpec:
    spec = ServiceSpec()
    spec.annotations.name = "web"
    spec.task.container.image = "nginx:1"
    spec.replicated.replicas = 1
    return spec


def check(change: Change) -> None:
    spec = valid()
    change(spec)
    check_request(spec)
    check_service_spec(spec)


def secret(id: str = "s1", name: str = "key", target: str | None = "key") -> SecretReference:
    file = None if target is None else FileTarget(name=target)
    return SecretReference(secret_id=id, secret_name=name, file=file)


def config(id: str = "c1", name: str = "conf", target: str | None = "conf") -> ConfigReference:
    file = None if target is None else FileTarget(name=target)
    return ConfigReference(config_id=id, config_name=name, file=file)


def container(spec: ServiceSpec) -> ContainerSpec:
    return spec.task.container


def negative() -> Duration:
    return Duration(seconds=-1)


def port(target: int, published: int, mode: PortConfig.PublishMode.ValueType = PortConfig.HOST) -> PortConfig:
    return PortConfig(target_port=target, published_port=published, publish_mode=mode)


def both(*changes: Change) -> Change:
    def change(spec: ServiceSpec) -> None:
        for one in changes:
            one(spec)

    return change


def process(kind: str = "process", url: str = "type.googleapis.com/swarmcore.v1.ProcessSpec") -> Change:
    def change(spec: ServiceSpec) -> None:
        spec.task.generic.kind = kind
        spec.task.generic.payload.CopyFrom(AnyMessage(type_url=url, value=b"\x0a\x05sleep"))

    return change


ACCEPTED: dict[str, Change] = {
    "as it is": lambda s: None,
    "global": lambda s: getattr(s, "global").SetInParent(),
    "job": lambda s: s.replicated_job.SetInParent(),
    "global job": lambda s: s.global_job.SetInParent(),
    "no replicas": lambda s: s.replicated.SetInParent(),
    "process": process(),
    "process in capitals": process("Process"),
    "small cpu": lambda s: setattr(s.task.resources.limits, "nano_cpus", 1_000_000),
    "small memory": lambda s: setattr(s.task.resources.reservations, "memory_bytes", 4 * 1024 * 1024),
    "no swap limit": lambda s: setattr(s.task.resources.swap_bytes, "value", -1),
    "discrete": lambda s: s.task.resources.reservations.generic.append(
        GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="gpu", value=1))
    ),
    "host ports twice": lambda s: s.endpoint.ports.extend([port(80, 0), port(81, 0)]),
    "both protocols": lambda s: s.endpoint.ports.extend(
        [port(53, 53), PortConfig(target_port=53, published_port=53, protocol=PortConfig.UDP)]
    ),
    "constraint": lambda s: s.task.placement.constraints.append("node.labels.rack != r7"),
    "spread": lambda s: s.task.placement.preferences.append(
        PlacementPreference(spread=SpreadOver(spread_descriptor="node.labels.rack"))
    ),
    "one config in two places": lambda s: container(s).configs.extend([config(target="a"), config(target="b")]),
    "credential": both(
        lambda s: setattr(container(s).privileges.credential_spec, "config", "c1"),
        lambda s: container(s).configs.append(
            ConfigReference(config_id="c1", config_name="x", runtime=RuntimeTarget())
        ),
    ),
    "env without value": lambda s: container(s).env.append("NAME"),
    "unlimited": lambda s: container(s).ulimits.append(ContainerSpec.Ulimit(name="nofile", soft=-1, hard=-1)),
    "health": lambda s: container(s).healthcheck.interval.FromMilliseconds(1),
    "health of zero": lambda s: container(s).healthcheck.interval.SetInParent(),
    "ratio": lambda s: setattr(s.update, "max_failure_ratio", 1.0),
    "template": lambda s: container(s).env.append("NODE={{.Node.Hostname}}"),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(change: Change) -> None:
    check(change)


REFUSED: list[tuple[str, str, Change]] = [
    ("meta: name must be provided", "annotations.name", lambda s: setattr(s.annotations, "name", "")),
    ("name must be valid as a DNS", "annotations.name", lambda s: setattr(s.annotations, "name", "a.b")),
    (
        "invalid cpu value 0.000999999: Must be at least 0.001",
        "task.resources.limits.nano_cpus",
        lambda s: setattr(s.task.resources.limits, "nano_cpus", 999_999),
    ),
    (
        "invalid cpu value -1",
        "task.resources.reservations.nano_cpus",
        lambda s: setattr(s.task.resources.reservations, "nano_cpus", -1_000_000_000),
    ),
    (
        "invalid memory value 4194303: Must be at least 4MiB",
        "task.resources.limits.memory_bytes",
        lambda s: setattr(s.task.resources.limits, "memory_bytes", 4 * 1024 * 1024 - 1),
    ),
    (
        "invalid memory value -1",
        "task.resources.reservations.memory_bytes",
        lambda s: setattr(s.task.resources.reservations, "memory_bytes", -1),
    ),
    (
        "invalid generic resource",
        "task.resources.reservations.generic",
        lambda s: s.task.resources.reservations.generic.append(
            GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value="0"))
        ),
    ),
    (
        "invalid generic resource",
        "task.resources.reservations.generic",
        lambda s: s.task.resources.reservations.generic.append(
            GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="gpu", value=-1))
        ),
    ),
    (
        "limits nothing",
        "task.resources.limits.generic",
        lambda s: s.task.resources.limits.generic.append(
            GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="gpu", value=1))
        ),
    ),
    (
        "must be NONE, CMD and its words",
        "task.container.healthcheck.test",
        lambda s: container(s).healthcheck.test.extend(["true"]),
    ),
    (
        "must be NONE, CMD and its words",
        "task.container.healthcheck.test",
        lambda s: container(s).healthcheck.test.extend(["CMD"]),
    ),
    (
        "'resolver' is no address",
        "task.container.dns_config.nameservers[1]",
        lambda s: container(s).dns_config.nameservers.extend(["2001:db8::1", "resolver"]),
    ),
    (
        "soft limit above the hard one",
        "task.container.ulimits[0]",
        lambda s: container(s).ulimits.add(name="nofile", soft=2, hard=1),
    ),
    (
        "soft limit above the hard one",
        "task.container.ulimits[0]",
        lambda s: container(s).ulimits.add(name="nofile", soft=-1, hard=1),
    ),
    (
        "needs the mode CUSTOM",
        "task.container.privileges.seccomp.profile",
        lambda s: setattr(container(s).privileges.seccomp, "profile", b"{}"),
    ),
    (
        "invalid swap value",
        "task.resources.swap_bytes",
        lambda s: setattr(s.task.resources.swap_bytes, "value", -2),
    ),
    (
        "invalid swappiness",
        "task.resources.memory_swappiness",
        lambda s: setattr(s.task.resources.memory_swappiness, "value", 101),
    ),
    (
        "TaskSpec: restart-delay cannot be negative",
        "task.restart.delay",
        lambda s: s.task.restart.delay.CopyFrom(negative()),
    ),
    (
        "TaskSpec: restart-window cannot be negative",
        "task.restart.window",
        lambda s: s.task.restart.window.CopyFrom(Duration(nanos=-1)),
    ),
    (
        "constraint expected one operator from ==, !=",
        "task.placement.constraints[1]",
        lambda s: s.task.placement.constraints.extend(["node.id==a", "node.role"]),
    ),
    ("key '", "task.placement.constraints[0]", lambda s: s.task.placement.constraints.append("\n==a")),
    (
        "key 'kkk",
        "task.placement.constraints[0]",
        lambda s: s.task.placement.constraints.append("k" * 9999 + "é==a"),
    ),
    ("is empty", "task.placement.preferences[0]", lambda s: s.task.placement.preferences.add()),
    ("malformed secret reference", "task.container.secrets", lambda s: container(s).secrets.append(secret(id=""))),
    ("malformed secret reference", "task.container.secrets", lambda s: container(s).secrets.append(secret(name=""))),
    (
        "malformed secret reference, no target provided",
        "task.container.secrets.target",
        lambda s: container(s).secrets.append(secret(target=None)),
    ),
    (
        "malformed secret reference, no file name",
        "task.container.secrets.file.name",
        lambda s: container(s).secrets.append(secret(target="")),
    ),
    (
        "secret references 'a' and 'b' have a conflicting target: 'x'",
        "task.container.secrets.file.name",
        lambda s: container(s).secrets.extend([secret(name="a", target="x"), secret(name="b", target="x")]),
    ),
    ("malformed config reference", "task.container.configs", lambda s: container(s).configs.append(config(id=""))),
    (
        "malformed config reference, no target provided",
        "task.container.configs.target",
        lambda s: container(s).configs.append(config(target=None)),
    ),
    (
        "config references 'a' and 'b' have a conflicting target: 'x'",
        "task.container.configs.file.name",
        lambda s: container(s).configs.extend([config(name="a", target="x"), config(name="b", target="x")]),
    ),
    (
        "CredentialSpec: config 'c9'",
        "task.container.configs",
        lambda s: setattr(container(s).privileges.credential_spec, "config", "c9"),
    ),
    ("TaskSpec: missing runtime", "task.container", lambda s: s.task.ClearField("container")),
    ("expanding", "task.container.hostname", lambda s: setattr(container(s), "hostname", "{{.Nothing}}")),
    ("image reference must be provided", "task.container.image", lambda s: setattr(container(s), "image", "")),
    (
        "ContainerSpec: 'UP:CASE' is not a valid repository/tag",
        "task.container.image",
        lambda s: setattr(container(s), "image", "UP:CASE"),
    ),
    (
        "ContainerSpec: duplicate mount point: /data",
        "task.container.mounts[1].target",
        lambda s: container(s).mounts.extend([Mount(target="/data"), Mount(target="/data")]),
    ),
    (
        "ContainerSpec: duplicate mount point: /1",
        "task.container.mounts[1].target",
        lambda s: container(s).mounts.extend([Mount(target="/1"), Mount(target="/{{.Task.Slot}}")]),
    ),
    ("is empty", "task.container.mounts[0].target", lambda s: container(s).mounts.add()),
    (
        "cannot be negative",
        "task.container.mounts[0].tmpfs_options.size_bytes",
        lambda s: container(s).mounts.append(Mount(target="/a", tmpfs_options=Mount.TmpfsOptions(size_bytes=-1))),
    ),
    *(
        (
            f"ContainerSpec: {title} in HealthConfig cannot be less than 1ms",
            f"task.container.healthcheck.{part}",
            lambda s, part=part: getattr(container(s).healthcheck, part).FromMicroseconds(999),
        )
        for title, part in (
            ("Interval", "interval"),
            ("Timeout", "timeout"),
            ("StartPeriod", "start_period"),
            ("StartInterval", "start_interval"),
        )
    ),
    (
        "cannot be less than 1ms",
        "task.container.healthcheck.interval",
        lambda s: container(s).healthcheck.interval.CopyFrom(negative()),
    ),
    (
        "Retries in HealthConfig cannot be negative",
        "task.container.healthcheck.retries",
        lambda s: setattr(container(s).healthcheck, "retries", -1),
    ),
    (
        "cannot be negative",
        "task.container.stop_grace_period",
        lambda s: container(s).stop_grace_period.CopyFrom(negative()),
    ),
    ("has no name", "task.container.env[0]", lambda s: container(s).env.append("=x")),
    ("has no name", "task.container.env[1]", lambda s: container(s).env.extend(["A=b", ""])),
    ("must be -1 or more", "task.container.pidsLimit", lambda s: setattr(container(s), "pidsLimit", -2)),
    ("between", "task.container.oom_score_adj", lambda s: setattr(container(s), "oom_score_adj", -(2**63))),
    ("is empty", "task.container.ulimits[0].name", lambda s: container(s).ulimits.add()),
    (
        "cannot be negative",
        "task.container.ulimits[0]",
        lambda s: container(s).ulimits.append(ContainerSpec.Ulimit(name="nofile", soft=-2)),
    ),
    ("Generic runtime: Invalid name 'ab'", "task.generic.kind", process("ab")),
    ("Generic runtime: Invalid name", "task.generic.kind", process("ab\ncd")),
    ("Generic runtime: Invalid name", "task.generic.kind", process("x" * 65)),
    ("Generic runtime: 'Container' is a reserved name", "task.generic.kind", process("Container")),
    ("Generic runtime: 'attachment' is a reserved name", "task.generic.kind", process("attachment")),
    ("Generic runtime is missing payload type", "task.generic.payload.type_url", process(url="")),
    (
        "Generic runtime is missing payload",
        "task.generic.payload",
        both(process(), lambda s: s.task.generic.ClearField("payload")),
    ),
    (
        "Generic runtime has an empty payload",
        "task.generic.payload.value",
        both(process(), lambda s: s.task.generic.payload.ClearField("value")),
    ),
    ("Unrecognized service mode", "mode", lambda s: s.ClearField("replicated")),
    ("must be non-negative", "replicated.replicas", lambda s: setattr(s.replicated, "replicas", 2**63)),
    ("at most 200000 tasks", "replicated.replicas", lambda s: setattr(s.replicated, "replicas", 2**63 - 1)),
    (
        "must be non-negative",
        "replicated_job.max_concurrent",
        lambda s: setattr(s.replicated_job, "max_concurrent", 2**63),
    ),
    (
        "must be non-negative",
        "replicated_job.total_completions",
        lambda s: setattr(s.replicated_job, "total_completions", 2**64 - 1),
    ),
    (
        "at most 200000 tasks",
        "replicated_job.total_completions",
        lambda s: setattr(s.replicated_job, "total_completions", 200_001),
    ),
    ("update config", "update", both(lambda s: s.replicated_job.SetInParent(), lambda s: s.update.SetInParent())),
    *(
        (text, f"{part}.{field}", lambda s, part=part, field=field, value=value: _set(s, part, field, value))
        for part in ("update", "rollback")
        for text, field, value in (
            ("TaskSpec: update-delay cannot be negative", "delay", negative()),
            ("TaskSpec: update-monitor cannot be negative", "monitor", negative()),
            ("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1", "max_failure_ratio", 1.01),
            ("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1", "max_failure_ratio", -0.5),
            ("TaskSpec: update-maxfailureratio", "max_failure_ratio", float("nan")),
            ("TaskSpec: update-maxfailureratio", "max_failure_ratio", float("inf")),
        )
    ),
    (
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        "endpoint.mode",
        both(
            lambda s: setattr(s.endpoint, "mode", EndpointSpec.DNSRR),
            lambda s: s.endpoint.ports.append(PortConfig(target_port=80)),
        ),
    ),
    (
        "EndpointSpec: duplicate published ports provided",
        "endpoint.ports",
        lambda s: s.endpoint.ports.extend([port(80, 8080), port(81, 8080)]),
    ),
    ("between 1 and 65535", "endpoint.ports.target_port", lambda s: s.endpoint.ports.append(port(0, 80))),
    ("between 1 and 65535", "endpoint.ports.target_port", lambda s: s.endpoint.ports.append(port(2**32 - 1, 80))),
    ("at most 65535", "endpoint.ports.published_port", lambda s: s.endpoint.ports.append(port(80, 65536))),
    ("must be printable", "task.log_driver.name", lambda s: setattr(s.task.log_driver, "name", "x" * 100_000)),
    ("must be printable", "task.log_driver.name", lambda s: setattr(s.task.log_driver, "name", "a\x1b[2J")),
    ("at most 4096", "task.container.user", lambda s: setattr(s.task.container, "user", "x" * 4097)),
    ("at most 4096", "task.container.dir", lambda s: setattr(s.task.container, "dir", "x" * 100_000)),
]


def _set(spec: ServiceSpec, part: str, field: str, value: object) -> None:
    update = getattr(spec, part)
    if isinstance(value, Duration):
        getattr(update, field).CopyFrom(value)
    else:
        setattr(update, field, value)


@pytest.mark.parametrize(("text", "field", "change"), REFUSED, ids=[f"{row[1]} {row[0]}"[:80] for row in REFUSED])
def test_refused(text: str, field: str, change: Change) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check(change)

    said = str(caught.value)
    assert text in said
    assert field in said
    assert said.isprintable()
    assert len(said) < 600


def test_network_attachments_are_not_for_services() -> None:
    with pytest.raises(UnimplementedError, match=r"task\.attachment"):
        check(lambda s: s.task.attachment.SetInParent())


def test_rules_come_in_order() -> None:
    """What is wrong in many ways is told the first thing first."""
    repairs: list[tuple[str, Change]] = [
        ("annotations.name", lambda s: setattr(s.annotations, "name", "web")),
        ("nano_cpus", lambda s: s.task.resources.ClearField("limits")),
        ("restart.delay", lambda s: s.task.restart.ClearField("delay")),
        ("constraints", lambda s: s.task.placement.ClearField("constraints")),
        ("container.secrets", lambda s: container(s).ClearField("secrets")),
        ("container.configs", lambda s: container(s).ClearField("configs")),
        ("container.hostname", lambda s: container(s).ClearField("hostname")),
        ("container.image", lambda s: setattr(container(s), "image", "nginx")),
        ("mounts", lambda s: container(s).ClearField("mounts")),
        ("healthcheck", lambda s: container(s).ClearField("healthcheck")),
        ("mode", lambda s: setattr(s.replicated, "replicas", 1)),
        ("update.delay", lambda s: s.ClearField("update")),
        ("endpoint.ports", lambda s: s.ClearField("endpoint")),
    ]
    spec = ServiceSpec(annotations=Annotations(name="a.b"))
    spec.task.resources.limits.nano_cpus = 1
    spec.task.restart.delay.seconds = -1
    spec.task.placement.constraints.append("x")
    container(spec).secrets.add()
    container(spec).configs.add()
    container(spec).hostname = "{{"
    container(spec).mounts.extend([Mount(target="/a"), Mount(target="/a")])
    container(spec).healthcheck.retries = -1
    spec.update.delay.seconds = -1
    spec.endpoint.ports.add()

    for field, repair in repairs:
        with pytest.raises(InvalidArgumentError) as caught:
            check_service_spec(spec)
        assert field in str(caught.value)
        repair(spec)
    check_service_spec(spec)
