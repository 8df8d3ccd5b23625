"""Where Podman is not Docker, as pure facts; and what is refused before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from swarmcore_podman_executor import differences, spec
from swarmcore_podman_executor.health import HealthCheck
from swarmcore_podman_executor.host import Host

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import Driver, Mount, PortConfig, Privileges
from swarmcore.errors import ConfigurationError
from swarmcore.plugin.executor import TaskRejectedError

SECOND = 1_000_000_000


def task() -> Task:
    task = Task(id="t1", slot=1)
    task.service_annotations.name = "web"
    task.spec.container.image = "redis"
    return task


def request(task: Task, host: Host | None = None) -> dict[str, Any]:
    return spec.create_request(task, image="redis", host=host if host is not None else Host())


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("redis", "docker.io/library/redis"),
        ("redis:3", "docker.io/library/redis:3"),
        ("me/redis:3", "docker.io/me/redis:3"),
        ("localhost/redis", "localhost/redis"),
        ("127.0.0.1:5000/redis:3", "127.0.0.1:5000/redis:3"),
        ("quay.io/me/redis", "quay.io/me/redis"),
        ("redis:3@sha256:aa", "docker.io/library/redis@sha256:aa"),
        ("host:5000/redis@sha256:aa", "host:5000/redis@sha256:aa"),
    ],
)
def test_an_image_means_what_it_means_to_docker(image: str, full: str) -> None:
    assert differences.normalized_image(image) == full


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("int", 2),
        ("15", 15),
        ("SIGRTMIN+3", 37),
        ("SIGNOPE", None),
        ("0", None),
        ("RTMIN+99", None),
        ("²", None),
        ("RTMIN+²", None),
        ("9" * 5000, None),
    ],
)
def test_a_signal_is_a_number(name: str, number: int | None) -> None:
    assert differences.signal_number(name) == number


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:02Z", 2 * SECOND),
        ("1970-01-01T00:00:02.5Z", 2 * SECOND + SECOND // 2),
        ("1970-01-01T01:00:02.000000001+01:00", 2 * SECOND + 1),
    ],
)
def test_a_timestamp_is_read_with_or_without_a_fraction(text: str, nanoseconds: int) -> None:
    assert differences.log_timestamp_ns(text) == nanoseconds


def test_what_is_no_timestamp_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a timestamp"):
        differences.log_timestamp_ns("yesterday")


def test_what_answers_500_is_told_by_its_words() -> None:
    assert differences.is_name_taken(500, 'the container name "a" is already in use by b')
    assert not differences.is_name_taken(500, "no space left on device")
    assert differences.is_not_running(500, "can only kill running containers. a is in state exited")
    assert not differences.is_not_running(500, "no space left on device")
    assert differences.is_no_image(404, "redis: image not known")
    assert differences.removal_error([{"Id": "a", "Err": None}]) == ""
    assert differences.removal_error([{"Id": "a", "Err": "busy"}]) == "busy"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: t.spec.container.ClearField("image"), "container.image"),
        (lambda t: t.spec.networks.add(target="n"), "networks"),
        (lambda t: t.endpoint.ports.add(target_port=80), "endpoint.ports"),
        (lambda t: setattr(t.spec.container, "isolation", 1), "container.isolation"),
        (lambda t: t.spec.container.mounts.add(type=Mount.NPIPE), "container.mounts"),
        (lambda t: t.spec.container.mounts.add(type=Mount.CLUSTER), "container.mounts"),
        (lambda t: t.spec.container.mounts.add().volume_options.MergeFrom(Mount.VolumeOptions(subpath="x")), "subpath"),
        (
            lambda t: t.spec.container.mounts.add(
                type=Mount.BIND, bind_options=Mount.BindOptions(readonlyforcerecursive=True)
            ),
            "readonlyforcerecursive",
        ),
        (
            lambda t: t.spec.container.mounts.add(type=Mount.TMPFS, tmpfs_options=Mount.TmpfsOptions(options="uid=1")),
            "tmpfs_options.options: 'uid=1'",
        ),
        (lambda t: setattr(t.spec.container, "stop_signal", "SIGNOPE"), "container.stop_signal"),
        (lambda t: setattr(t.spec.container.privileges.credential_spec, "file", "x"), "credential_spec"),
        (lambda t: setattr(t.spec.container.privileges.selinux_context, "type", "x"), "selinux_context"),
        (
            lambda t: t.spec.container.privileges.seccomp.MergeFrom(
                Privileges.SeccompOpts(mode=Privileges.SeccompOpts.CUSTOM, profile=b"{")
            ),
            "seccomp.profile",
        ),
        (lambda t: setattr(t.spec.resources.memory_swappiness, "value", 1), "resources.memory_swappiness"),
        (lambda t: setattr(t.log_driver, "name", "splunk"), "log_driver: 'splunk'"),
        (lambda t: t.log_driver.MergeFrom(Driver(options={"max-size": "1m"})), "log_driver.options"),
        (lambda t: t.log_driver.MergeFrom(Driver(name="k8s-file", options={"max-size": "²"})), "max-size"),
        (lambda t: t.log_driver.MergeFrom(Driver(name="json-file", options={"max-file": "3"})), "max-file"),
        (lambda t: t.log_driver.MergeFrom(Driver(name="k8s-file", options={"max-size": "x"})), "max-size"),
    ],
)  # fmt: skip
def test_a_field_that_can_not_be_honoured_is_refused_by_its_name(change: Any, field: str) -> None:
    asked = task()
    change(asked)

    with pytest.raises(TaskRejectedError) as refused:
        spec.refuse_unsupported(asked, Host())

    assert field in str(refused.value)


def test_a_limit_that_the_host_can_not_set_is_refused_by_its_name() -> None:
    asked = task()
    asked.spec.resources.limits.memory_bytes = 1 << 26

    with pytest.raises(TaskRejectedError, match=r"resources\.limits\.memory_bytes: .* 'memory'"):
        spec.refuse_unsupported(asked, Host(controllers=frozenset({"cpu"})))
    with pytest.raises(TaskRejectedError, match=r"resources\.limits\.memory_bytes: a rootless engine"):
        spec.refuse_unsupported(asked, Host(rootless=True, cgroup_v2=False))


NAMELESS = "0123456789abcdef" * 4


def _groups(task: Task) -> None:
    task.spec.container.groups.append("70000")


def _ulimits(task: Task) -> None:
    task.spec.container.ulimits.add(name="nofile", soft=1, hard=1 << 40)


def _dir(task: Task) -> None:
    task.spec.container.dir = "/nosuch"


def _oom_score(task: Task) -> None:
    task.spec.container.oom_score_adj = -1000


def _sysctl_program(task: Task) -> None:
    task.spec.container.command.append("sysctl")


@pytest.mark.parametrize(
    ("ask", "told", "said"),
    [
        (
            _dir,
            f'workdir "/nosuch" does not exist on container {NAMELESS}',
            'container.dir: workdir "/nosuch" does not exist',
        ),
        (
            _groups,
            f"looking up supplemental groups for container {NAMELESS}: Unable to find group x",
            "container.groups: looking up supplemental groups: Unable to find group x",
        ),
        (
            _ulimits,
            "runc: error setting rlimit type 7: operation not permitted",
            "container.ulimits: runc: error setting rlimit type 7: operation not permitted",
        ),
        (
            _oom_score,
            "runc: can't get final child's PID from pipe: EOF",
            "container.oom_score_adj: the engine can't lower it to -1000 here "
            "(runc: can't get final child's PID from pipe: EOF)",
        ),
        (_sysctl_program, 'exec: "sysctl": executable file not found', 'exec: "sysctl": executable file not found'),
        (_dir, "mount: unknown filesystem\n       dmesg(1) may tell", "mount: unknown filesystem dmesg(1) may tell"),
    ],
)
def test_what_the_engine_refuses_is_one_line_with_the_fields_name_and_the_same_each_time(
    ask: Callable[[Task], None], told: str, said: str
) -> None:
    asked = task()
    ask(asked)

    assert differences.refusal(told, asked.spec.container) == said


def test_a_variable_without_a_value_is_kept_from_the_container() -> None:
    asked = task()
    asked.spec.container.env.extend(["PATH", "A=1=2", "B="])

    made = request(asked)
    with pytest.raises(TaskRejectedError, match=r"container\.env: 'PATH' has no value: Podman 4\.2"):
        spec.refuse_unsupported(asked, Host(version=(4, 1)))

    assert (made["env"], made["unsetenv"]) == ({"A": "1=2", "B": ""}, ["PATH"])


def test_a_rootless_engine_can_not_lower_the_oom_score() -> None:
    asked = task()
    asked.spec.container.oom_score_adj = -1

    with pytest.raises(TaskRejectedError, match=r"container\.oom_score_adj"):
        spec.refuse_unsupported(asked, Host(rootless=True))


def test_both_protocols_of_a_port_are_asked_for() -> None:
    asked = task()
    for protocol in (PortConfig.TCP, PortConfig.UDP):
        asked.endpoint.ports.add(target_port=53, published_port=53, publish_mode=PortConfig.HOST, protocol=protocol)

    assert [(each["host_port"], each["protocol"]) for each in request(asked)["portmappings"]] == [
        (53, "tcp"),
        (53, "udp"),
    ]


def test_cpus_are_a_quota_of_at_least_a_millisecond() -> None:
    asked, tiny = task(), task()
    asked.spec.resources.limits.nano_cpus = 1_500_000_000
    tiny.spec.resources.limits.nano_cpus = 1

    assert request(asked)["resource_limits"]["cpu"] == {"period": 100_000, "quota": 150_000}
    assert request(tiny)["resource_limits"]["cpu"]["quota"] == 1000


def test_a_health_check_has_no_timer_and_its_container_remembers_when_it_is_due() -> None:
    asked = task()
    health = asked.spec.container.healthcheck
    health.test.extend(["CMD", "true"])
    health.interval.seconds = 7
    check = HealthCheck.of(asked, {"Test": ["CMD", "false"], "Timeout": 3 * SECOND, "Retries": 9})
    assert check is not None

    found = HealthCheck.found({"Config": {"Labels": {"swarmcore.podman.health": check.label()}}})

    assert check.test == ("CMD", "true")
    assert check.request()["Interval"] == 0
    assert found is not None
    assert (found.interval, found.timeout, found.retries) == (7 * SECOND, 3 * SECOND, 9)


def test_the_images_health_check_serves_where_the_task_has_none_and_can_be_switched_off() -> None:
    image = {"Test": ["CMD", "true"], "Interval": SECOND}
    off = task()
    off.spec.container.healthcheck.test.append("NONE")

    check = HealthCheck.of(task(), image)

    assert check is not None
    assert (check.test, check.interval, check.retries) == (("CMD", "true"), SECOND, 3)
    assert HealthCheck.of(off, image) is None
    assert HealthCheck.of(task(), {}) is None


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d,e", "1,2,3,4,99999999999999999999999"])
def test_a_label_that_is_not_ours_is_no_health_check(text: str) -> None:
    assert HealthCheck.found({"Config": {"Labels": {"swarmcore.podman.health": text}}}) is None


def test_podman_before_4_is_too_old() -> None:
    with pytest.raises(ConfigurationError, match=r"Podman 3\.4\.4 is too old: 4\.0"):
        Host.of({"host": {}, "version": {"Version": "3.4.4"}})


def test_what_goes_wrong_between_podman_and_conmon_is_no_output_of_a_command() -> None:
    reset = b"Error: %s unixpacket @->/proc/self/fd/15/attach: %s: connection reset by peer\n"
    read, write = reset % (b"read", b"read"), reset % (b"write", b"write")
    refused = b'Error: runc: exec failed: exec: "nosuch": executable file not found in $PATH\n'

    assert differences.command_words(b"Error: of the command\n", b"") == b"Error: of the command\n"
    assert differences.command_words(write, b"") == b""
    assert differences.command_words(read, refused) == b""
    assert b"may have lost its last output" in differences.command_words(read, b"")
