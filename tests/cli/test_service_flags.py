"""What each flag of `service create` and `service update` does to the spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swarmcore.api.process_pb2 import ProcessSpec
from swarmcore.api.specs_pb2 import ContainerSpec, ServiceSpec
from swarmcore.api.types_pb2 import (
    DiscreteGenericResource,
    Driver,
    GenericResource,
    Mount,
    PortConfig,
    RestartPolicy,
    UpdateConfig,
)
from swarmcore.cli import service_values
from swarmcore.testing.control_socket import Ctl, FakeManager

CREATE = ("service", "create", "--name", "web", "--image", "nginx:1")


def created(manager: FakeManager, ctl: Ctl, *args: str) -> ServiceSpec:
    shown = ctl(*CREATE, *args)
    assert (shown.code, shown.err) == (0, "")
    spec: ServiceSpec = manager.one("service").spec
    return spec


def updated(manager: FakeManager, ctl: Ctl, *args: str) -> ServiceSpec:
    shown = ctl("service", "update", "web", *args)
    assert (shown.code, shown.err) == (0, "")
    spec: ServiceSpec = manager.one("service").spec
    return spec


def test_a_bare_create_says_only_what_the_defaults_are(manager: FakeManager, ctl: Ctl) -> None:
    wanted = ServiceSpec()
    wanted.annotations.name = "web"
    wanted.replicated.replicas = 1
    wanted.task.container.image = "nginx:1"
    wanted.task.restart.condition = RestartPolicy.ANY
    wanted.update.SetInParent()
    wanted.rollback.SetInParent()

    assert created(manager, ctl) == wanted


CASES: list[tuple[tuple[str, ...], Callable[[ServiceSpec], Any], Any]] = [
    (("--label", "a=1", "--label", "b"), lambda s: dict(s.annotations.labels), {"a": "1", "b": ""}),
    (("--replicas", "0"), lambda s: s.replicated.replicas, 0),
    (("--replicas-max-per-node", "2"), lambda s: s.task.placement.max_replicas, 2),
    (("--hostname", "h"), lambda s: s.task.container.hostname, "h"),
    (("--command", "sh", "--command=-c"), lambda s: list(s.task.container.command), ["sh", "-c"]),
    (("--args", "a,b", "--args", "c"), lambda s: list(s.task.container.args), ["a,b", "c"]),
    (("--env", "A=1", "--env", "B=2"), lambda s: list(s.task.container.env), ["A=1", "B=2"]),
    (("--tty", "--open-stdin"), lambda s: (s.task.container.tty, s.task.container.open_stdin), (True, True)),
    (("--memory-limit", "512m"), lambda s: s.task.resources.limits.memory_bytes, 512 << 20),
    (("--memory-reservation", "1g"), lambda s: s.task.resources.reservations.memory_bytes, 1 << 30),
    (("--cpu-limit", "1.5"), lambda s: s.task.resources.limits.nano_cpus, 1_500_000_000),
    (("--cpu-reservation", "0.25"), lambda s: s.task.resources.reservations.nano_cpus, 250_000_000),
    (
        ("--generic-resources", "gpu=2"),
        lambda s: list(s.task.resources.reservations.generic),
        [GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="gpu", value=2))],
    ),
    (
        ("--ulimit", "nofile=10:20"),
        lambda s: list(s.task.container.ulimits),
        [ContainerSpec.Ulimit(name="nofile", soft=10, hard=20)],
    ),
    (("--update-order", "start-first"), lambda s: s.update.order, UpdateConfig.START_FIRST),
    (("--update-on-failure", "rollback"), lambda s: s.update.failure_action, UpdateConfig.ROLLBACK),
    (("--update-max-failure-ratio", "0.5"), lambda s: s.update.max_failure_ratio, 0.5),
    (("--rollback-parallelism", "3"), lambda s: s.rollback.parallelism, 3),
    (("--rollback-delay", "1m30s"), lambda s: s.rollback.delay.seconds, 90),
    (("--rollback-on-failure", "continue"), lambda s: s.rollback.failure_action, UpdateConfig.CONTINUE),
    (("--restart-condition", "failure"), lambda s: s.task.restart.condition, RestartPolicy.ON_FAILURE),
    (("--restart-delay", "500ms"), lambda s: s.task.restart.delay.nanos, 500_000_000),
    (("--restart-max-attempts", "3"), lambda s: s.task.restart.max_attempts, 3),
    (("--restart-window", "1h"), lambda s: s.task.restart.window.seconds, 3600),
    (("--oom-score-adj", "-500"), lambda s: s.task.container.oom_score_adj, -500),
    (("--constraint", "node.role==worker"), lambda s: list(s.task.placement.constraints), ["node.role==worker"]),
    (
        ("--placement-pref", "spread=node.labels.dc", "--placement-pref", "spread=engine.labels.rack"),
        lambda s: [each.spread.spread_descriptor for each in s.task.placement.preferences],
        ["node.labels.dc", "engine.labels.rack"],
    ),
    (("--init",), lambda s: s.task.container.init.value, True),
    (
        ("--log-driver", "gelf", "--log-opt", "tag=x"),
        lambda s: s.task.log_driver,
        Driver(name="gelf", options={"tag": "x"}),
    ),
    (
        ("--bind", "/a:/b", "--volume", "/v"),
        lambda s: list(s.task.container.mounts),
        [Mount(type=Mount.BIND, source="/a", target="/b"), Mount(type=Mount.VOLUME, target="/v")],
    ),
]


@pytest.mark.parametrize(("args", "read", "wanted"), CASES, ids=[case[0][0] for case in CASES])
def test_a_flag_means_the_same_to_create_and_update(
    args: tuple[str, ...], read: Callable[[ServiceSpec], Any], wanted: Any, manager: FakeManager, ctl: Ctl
) -> None:
    assert read(created(manager, ctl, *args)) == wanted
    ctl("service", "remove", "web")

    before = created(manager, ctl)
    after = updated(manager, ctl, *args)
    assert read(after) == wanted
    assert after.annotations.name == before.annotations.name
    assert after.task.container.image == before.task.container.image


def test_a_list_that_is_given_empty_is_emptied(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl, "--env", "A=1", "--constraint", "node.role==worker", "--label", "a=1")

    spec = updated(manager, ctl, "--env", "", "--constraint", "", "--label", "")

    assert not spec.task.container.env and not spec.task.placement.constraints and not spec.annotations.labels


def test_a_log_driver_that_is_given_empty_is_cleared(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl, "--log-driver", "gelf")

    assert not updated(manager, ctl, "--log-driver", "").task.HasField("log_driver")


def test_an_update_that_changes_nothing_says_so_and_force_replaces_tasks(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl)

    unchanged = ctl("service", "update", "web", "--replicas", "1")
    forced = updated(manager, ctl, "--force")

    assert unchanged.code == 1 and unchanged.err.startswith("Error: no changes detected")
    assert forced.task.force_update == 1


def test_a_rollback_takes_the_spec_before_back(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl)
    updated(manager, ctl, "--image", "nginx:2")

    assert updated(manager, ctl, "--rollback").task.container.image == "nginx:1"
    assert "ROLLBACK_STARTED" in ctl("service", "inspect", "web").out


@pytest.mark.parametrize("flags", [("--replicas", "0"), ("--no-tty",), ("--log-driver", ""), ("--image", "nginx:3")])
def test_a_rollback_goes_alone(manager: FakeManager, ctl: Ctl, flags: tuple[str, ...]) -> None:
    created(manager, ctl)
    updated(manager, ctl, "--image", "nginx:2")

    refused = ctl("service", "update", "web", "--rollback", *flags)

    assert (refused.code, "--rollback goes alone" in refused.err) == (2, True)


def test_secrets_are_attached_read_only_and_detached_by_name(manager: FakeManager, ctl: Ctl) -> None:
    secret = ctl("secret", "create", "password", stdin=b"hunter2").out.strip()
    spec = created(manager, ctl, "--secret", "password:/run/pw")

    (reference,) = spec.task.container.secrets
    assert (reference.secret_id, reference.secret_name) == (secret, "password")
    assert (reference.file.name, reference.file.mode) == ("/run/pw", 0o444)
    assert f"[FILE] password@{secret}:/run/pw" in ctl("service", "inspect", "web").out
    assert "in use" in ctl("secret", "remove", "password").err
    assert not updated(manager, ctl, "--rm-secret", "password").task.container.secrets
    assert "is not attached" in ctl("service", "update", "web", "--rm-secret", "password").err


def test_a_config_takes_its_own_name_as_target_also_when_found_by_id(manager: FakeManager, ctl: Ctl) -> None:
    id = ctl("config", "create", "nginx.conf", stdin=b"x").out.strip()
    created(manager, ctl)

    (reference,) = updated(manager, ctl, "--add-config", id).task.container.configs

    assert (reference.config_name, reference.file.name) == ("nginx.conf", "nginx.conf")


def test_capabilities_move_between_the_two_lists(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl)

    added = updated(manager, ctl, "--add-capability", "CAP_NET_ADMIN", "--add-capability", "CAP_NET_ADMIN")
    dropped = updated(manager, ctl, "--rm-capability", "CAP_NET_ADMIN")

    assert list(added.task.container.capability_add) == ["CAP_NET_ADMIN"]
    assert not dropped.task.container.capability_add
    assert list(dropped.task.container.capability_drop) == ["CAP_NET_ADMIN"]


def test_a_process_service_carries_its_command_in_the_payload(manager: FakeManager, ctl: Ctl) -> None:
    args = ("service", "create", "--name", "tick", "--runtime", "process")
    made = ctl(*args, "--command", "sleep", "--args", "1000", "--env", "A=1", "--dir", "d", "--user", "nobody")
    ctl("service", "update", "tick", "--args", "2000")

    generic = manager.one("service").spec.task.generic
    spec = ProcessSpec()
    assert made.code == 0
    assert generic.kind == "process" and generic.payload.Unpack(spec)
    assert spec == ProcessSpec(command=["sleep"], args=["2000"], env=["A=1"], dir="d", user="nobody")
    assert "  Args            : 2000\n" in ctl("service", "inspect", "tick").out
    assert "  sleep 2000  " in ctl("service", "ls").out


def test_a_process_service_has_no_image(ctl: Ctl) -> None:
    args = ("service", "create", "--name", "tick", "--runtime", "process")

    assert "--image is for containers only" in ctl(*args, "--image", "x", "--command", "y").err
    assert "needs --command" in ctl(*args).err


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("web:80", PortConfig(name="web", target_port=80, publish_mode=PortConfig.HOST)),
        ("web:80:8080", PortConfig(name="web", target_port=80, published_port=8080, publish_mode=PortConfig.HOST)),
        (
            "dns:53/udp:5353/udp",
            PortConfig(
                name="dns", protocol=PortConfig.UDP, target_port=53, published_port=5353, publish_mode=PortConfig.HOST
            ),
        ),
        (
            "dns:53:5353/udp",
            PortConfig(
                name="dns", protocol=PortConfig.UDP, target_port=53, published_port=5353, publish_mode=PortConfig.HOST
            ),
        ),
    ],
)
def test_ports(text: str, port: PortConfig) -> None:
    assert service_values.port(text) == port


def test_tmpfs() -> None:
    mount = service_values.tmpfs("/tmp:size=64m,mode=1777,ro,noexec")

    assert (mount.type, mount.target, mount.readonly) == (Mount.TMPFS, "/tmp", True)
    options = mount.tmpfs_options
    assert (options.size_bytes, options.mode, options.options) == (64 << 20, 0o1777, "noexec")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (service_values.port, "80"),
        (service_values.port, "a:b:c:d"),
        (service_values.port, "8080:80"),
        (service_values.port, "web:0"),
        (service_values.port, "web:65536"),
        (service_values.port, "web:80/quic"),
        (service_values.port, "web:80/tcp:80/udp"),
        (service_values.port, "web:\u0661"),
        (service_values.bind, "/a"),
        (service_values.bind, "/a:b"),
        (service_values.bind, "/a:/b:/c"),
        (service_values.volume, "a:b"),
        (service_values.volume, "relative"),
        (service_values.tmpfs, "tmp"),
        (service_values.tmpfs, "/tmp:size=-1"),
        (service_values.tmpfs, "/tmp:mode=999"),
        (service_values.tmpfs, "/tmp:ro,rw"),
        (service_values.tmpfs, "/tmp:nosuchword"),
        (service_values.ulimit, "nofile"),
        (service_values.spread, "node.labels.rack"),
        (service_values.spread, "binpack=node.labels.rack"),
        (service_values.spread, "spread=node.id"),
        (service_values.spread, "spread=node.labels."),
        (service_values.ulimit, "nofile=20:10"),
        (service_values.ulimit, "nofile=-1:10"),
        (service_values.npipe, "x"),
        (service_values.attachment, ":target"),
        (service_values.attachment, "name:"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_the_text(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"\(write it like|has|is both|names two"):
        parse(text)


def test_a_replicated_job_runs_all_its_completions_at_once_unless_told_otherwise(
    manager: FakeManager, ctl: Ctl
) -> None:
    wanted = ServiceSpec()
    wanted.annotations.name = "web"
    wanted.replicated_job.total_completions = wanted.replicated_job.max_concurrent = 4
    wanted.task.container.image = "nginx:1"
    wanted.task.restart.condition = RestartPolicy.ON_FAILURE

    assert created(manager, ctl, "--mode", "replicated-job", "--completions", "4") == wanted

    job = updated(manager, ctl, "--completions", "9", "--max-concurrent", "3").replicated_job
    assert (job.total_completions, job.max_concurrent) == (9, 3)


def test_a_job_completes_once_where_nothing_is_said(manager: FakeManager, ctl: Ctl) -> None:
    job = created(manager, ctl, "--mode", "replicated-job").replicated_job

    assert (job.total_completions, job.max_concurrent) == (1, 1)


def test_a_global_job_has_no_numbers(manager: FakeManager, ctl: Ctl) -> None:
    assert created(manager, ctl, "--mode", "global-job").WhichOneof("mode") == "global_job"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--completions", "2"), "--completions is only for replicated jobs: leave it out"),
        (("--mode", "global-job", "--max-concurrent", "2"), "--max-concurrent is only for replicated jobs"),
        (
            ("--mode", "replicated-job", "--replicas", "2"),
            "--replicas is only for replicated services: say --completions",
        ),
        (("--mode", "global-job", "--replicas", "2"), "--replicas is only for replicated services: leave it out"),
        (("--mode", "replicated-job", "--update-delay", "1s"), "job spec may not have update config"),
    ],
)
def test_what_a_mode_does_not_have_is_refused_by_name(ctl: Ctl, flags: tuple[str, ...], complaint: str) -> None:
    shown = ctl(*CREATE, *flags)

    assert shown.code != 0
    assert complaint in shown.err
