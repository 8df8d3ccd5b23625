"""What the flags do that say how a container is run."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarmcore.api.process_pb2 import ProcessHealth, ProcessSpec, ProcessUlimit
from swarmcore.api.specs_pb2 import ContainerSpec, ServiceSpec
from swarmcore.api.types_pb2 import HealthConfig, Mount, Privileges
from swarmcore.cli import container_flags, mounts, service_values
from swarmcore.cli.registry_auth import registry_of
from swarmcore.testing.control_socket import Ctl, FakeManager

CREATE = ("service", "create", "--name", "web", "--image", "nginx:1")


def created(manager: FakeManager, ctl: Ctl, *args: str) -> ContainerSpec:
    shown = ctl(*CREATE, *args)
    assert (shown.code, shown.err) == (0, "")
    return container_of(manager)


def updated(manager: FakeManager, ctl: Ctl, *args: str) -> ContainerSpec:
    shown = ctl("service", "update", "web", *args)
    assert (shown.code, shown.err) == (0, "")
    return container_of(manager)


def container_of(manager: FakeManager) -> ContainerSpec:
    spec: ServiceSpec = manager.one("service").spec
    return spec.task.container


CASES: list[tuple[tuple[str, ...], Callable[[ContainerSpec], Any], Any, str]] = [
    (("--group", "audio", "--group", "44"), lambda c: list(c.groups), ["audio", "44"], "Groups"),
    (("--container-label", "a=1"), lambda c: dict(c.labels), {"a": "1"}, "Container Labels"),
    (("--read-only",), lambda c: c.read_only, True, "read-only"),
    (("--stop-signal", "SIGINT"), lambda c: c.stop_signal, "SIGINT", "SIGINT"),
    (("--stop-grace-period", "1m"), lambda c: c.stop_grace_period.seconds, 60, "Stop Grace"),
    (("--dns", "10.0.0.1"), lambda c: list(c.dns_config.nameservers), ["10.0.0.1"], "10.0.0.1"),
    (("--dns-search", "a.b"), lambda c: list(c.dns_config.search), ["a.b"], "DNS Search"),
    (("--dns-option", "ndots:2"), lambda c: list(c.dns_config.options), ["ndots:2"], "ndots:2"),
    (("--host", "db:10.0.0.5"), lambda c: list(c.hosts), ["10.0.0.5 db"], "10.0.0.5 db"),
    (("--host", "db:fd00::5"), lambda c: list(c.hosts), ["fd00::5 db"], "fd00::5 db"),
    (("--cap-add", "net_admin"), lambda c: list(c.capability_add), ["CAP_NET_ADMIN"], "CAP_NET_ADMIN"),
    (("--cap-drop", "ALL"), lambda c: list(c.capability_drop), ["ALL"], "Dropped"),
    (("--sysctl", "net.core.somaxconn=9"), lambda c: dict(c.sysctls), {"net.core.somaxconn": "9"}, "Sysctls"),
    (("--limit-pids", "7"), lambda c: c.pidsLimit, 7, "at most 7"),
    (("--workdir", "/srv"), lambda c: c.dir, "/srv", "/srv"),
    (("--isolation", "hyperv"), lambda c: c.isolation, ContainerSpec.ISOLATION_HYPERV, "Isolation"),
    (("--security-opt", "no-new-privileges"), lambda c: c.privileges.no_new_privileges, True, "no-new-privileges"),
    (
        ("--security-opt", "seccomp=unconfined", "--security-opt", "label=type:t"),
        lambda c: (c.privileges.seccomp.mode, c.privileges.selinux_context.type),
        (Privileges.SeccompOpts.UNCONFINED, "t"),
        "seccomp=unconfined, label=type:t",
    ),
    (("--credential-spec", "file://a"), lambda c: c.privileges.credential_spec.file, "a", "file://a"),
    (("--health-cmd", "curl x"), lambda c: list(c.healthcheck.test), ["CMD-SHELL", "curl x"], "curl x"),
    (("--health-interval", "5s"), lambda c: c.healthcheck.interval.seconds, 5, "the image's"),
    (("--health-timeout", "5s"), lambda c: c.healthcheck.timeout.seconds, 5, "Timeout"),
    (("--health-retries", "5"), lambda c: c.healthcheck.retries, 5, "Retries"),
    (("--health-start-period", "5s"), lambda c: c.healthcheck.start_period.seconds, 5, "Start Period"),
    (("--health-start-interval", "5s"), lambda c: c.healthcheck.start_interval.seconds, 5, "Start Interval"),
    (("--no-healthcheck",), lambda c: c.healthcheck, HealthConfig(test=["NONE"]), "switched off"),
    (
        ("--mount", "type=bind,source=/a,target=/b,readonly"),
        lambda c: list(c.mounts),
        [Mount(type=Mount.BIND, source="/a", target="/b", readonly=True)],
        "bind /a:/b (read-only)",
    ),
]


@pytest.mark.parametrize(("args", "read", "wanted", "shown"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_flag_means_the_same_to_create_and_update_and_is_shown(
    args: tuple[str, ...],
    read: Callable[[ContainerSpec], Any],
    wanted: Any,
    shown: str,
    manager: FakeManager,
    ctl: Ctl,
) -> None:
    assert read(created(manager, ctl, *args)) == wanted
    assert shown in ctl("service", "inspect", "web").out
    ctl("service", "remove", "web")

    before = created(manager, ctl)
    assert read(updated(manager, ctl, *args)) == wanted
    assert container_of(manager).image == before.image


def test_swap_is_of_the_task(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl, "--memory-swap", "-1", "--memory-swappiness", "10")

    resources = manager.one("service").spec.task.resources

    assert (resources.swap_bytes.value, resources.memory_swappiness.value) == (-1, 10)


def test_a_health_check_that_is_given_empty_is_the_images_again(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl, "--health-cmd", "true", "--no-tty")
    assert not updated(manager, ctl, "--health-cmd", "").HasField("healthcheck")

    updated(manager, ctl, "--no-healthcheck")
    assert list(updated(manager, ctl, "--health-cmd", "true").healthcheck.test) == ["CMD-SHELL", "true"]


@pytest.mark.parametrize("name", ["group", "host", "cap-add", "cap-drop", "sysctl", "container-label", "dns", "mount"])
def test_a_list_that_is_given_empty_is_emptied(name: str, manager: FakeManager, ctl: Ctl) -> None:
    value = {"host": "a:1.1.1.1", "dns": "1.1.1.1", "mount": "target=/a"}.get(name, "a")
    bare = created(manager, ctl)
    full = updated(manager, ctl, f"--{name}", value)

    assert full != bare
    assert updated(manager, ctl, f"--{name}", "") == bare


def test_mounts_of_every_kind_are_given_together(manager: FakeManager, ctl: Ctl) -> None:
    found = created(manager, ctl, "--mount", "target=/a", "--bind", "/x:/b", "--tmpfs", "/c").mounts

    assert [(each.type, each.target) for each in found] == [(1, "/a"), (0, "/b"), (2, "/c")]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("--no-healthcheck", "--health-cmd", "x"), "--no-healthcheck goes without --health-cmd: give one of them"),
        (("--health-interval", "x"), "'x' is not a duration"),
        (("--health-retries", "-1"), "'-1' is not a whole number between 0 and"),
        (("--host", "db"), "'db' is not a host (write it like db:10.0.0.5)"),
        (("--cap-add", "a b"), "'a b' is not a capability"),
        (("--stop-signal", "a b"), "'a b' is not a signal"),
        (("--security-opt", "seccomp=/nosuch"), "--security-opt seccomp: /nosuch: No such file or directory"),
        (("--security-opt", "privileged"), "--security-opt: 'privileged' is none of no-new-privileges"),
        (("--credential-spec", "x"), "--credential-spec: 'x' is none"),
        (("--secret", "source=a,modus=1"), "'source=a,modus=1' has 'modus=1': there are source, target"),
        (("--mount", "type=tape,target=/a"), "has the type 'tape': there are bind, volume, tmpfs"),
        (("--privileged",), "services give single rights, with --cap-add and --security-opt"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(args: tuple[str, ...], error: str, ctl: Ctl) -> None:
    shown = ctl(*CREATE, *args)

    assert shown.code in (1, 2)
    assert error in shown.err and len(shown.err.splitlines()) == 1


def test_a_check_that_is_switched_off_has_no_interval(manager: FakeManager, ctl: Ctl) -> None:
    created(manager, ctl, "--no-healthcheck")

    refused = ctl("service", "update", "web", "--health-interval", "5s")

    assert "the service's health check is switched off: give --health-cmd too" in refused.err


def test_a_custom_seccomp_profile_travels_with_the_service(manager: FakeManager, ctl: Ctl, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')

    seccomp = created(manager, ctl, "--security-opt", f"seccomp={profile}").privileges.seccomp

    assert (seccomp.mode, seccomp.profile) == (Privileges.SeccompOpts.CUSTOM, profile.read_bytes())


def test_a_secret_has_an_owner_and_a_mode(manager: FakeManager, ctl: Ctl) -> None:
    ctl("secret", "create", "password", stdin=b"hunter2")

    (reference,) = created(manager, ctl, "--secret", "source=password,target=pw,uid=5,gid=6,mode=0400").secrets

    assert (reference.file.name, reference.file.uid, reference.file.gid) == ("pw", "5", "6")
    assert reference.file.mode == 0o400


def test_a_process_takes_the_flags_that_mean_something_for_it(manager: FakeManager, ctl: Ctl) -> None:
    args = ("service", "create", "--name", "tick", "--runtime", "process", "--command", "sleep")
    flags = ("--stop-signal", "INT", "--stop-grace-period", "500ms", "--health-cmd", "true", "--health-retries", "2")
    limits = ("--pids-limit", "9", "--ulimit", "nofile=1:2", "--cpu-limit", "0.5", "--memory-limit", "8m")
    shown = ctl(*args, *flags, *limits, "--health-interval", "1s")
    spec = ProcessSpec()

    assert (shown.code, shown.err) == (0, "")
    assert manager.one("service").spec.task.generic.payload.Unpack(spec)
    health = ProcessHealth(command=["/bin/sh", "-c", "true"], retries=2, interval_seconds=1)
    assert spec == ProcessSpec(
        command=["sleep"],
        stop_signal="INT",
        stop_grace_seconds=0.5,
        health=health,
        pids_limit=9,
        ulimits=[ProcessUlimit(name="nofile", soft=1, hard=2)],
    )
    assert manager.one("service").spec.task.resources.limits.memory_bytes == 8 << 20
    page = ctl("service", "inspect", "tick").out
    assert "Health Check" in page and "nofile=1:2" in page and "Pids Limit" in page
    assert "--cap-add is for containers only" in ctl(*args, "--cap-add", "ALL").err


def logged_in(monkeypatch: pytest.MonkeyPatch, folder: Path, config: object) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    (folder / "config.json").write_text(json.dumps(config))


def auth_of(container: ContainerSpec) -> Any:
    return json.loads(base64.urlsafe_b64decode(container.pull_options.registry_auth))


def test_the_stored_login_of_the_images_registry_goes_with_the_service(
    manager: FakeManager, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    auth = base64.b64encode(b"me:secret:word").decode()
    logged_in(monkeypatch, tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": auth}}})

    assert auth_of(created(manager, ctl, "--with-registry-auth")) == {
        "username": "me",
        "password": "secret:word",
        "serveraddress": "https://index.docker.io/v1/",
    }
    shown = ctl("service", "inspect", "web", "-o", "json").out
    assert json.loads(shown)["spec"]["task"]["container"]["pull_options"] == {"registry_auth": "(hidden)"}


def test_a_credential_helper_is_asked(
    manager: FakeManager, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread name\nprintf \'{"Username": "%s", "Secret": "s"}\' "$name"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    logged_in(monkeypatch, tmp_path, {"credsStore": "test"})

    auth = auth_of(created(manager, ctl, "--image", "reg.example:5000/a:1", "--with-registry-auth"))

    assert auth == {"username": "reg.example:5000", "password": "s", "serveraddress": "reg.example:5000"}


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({}, "no login for Docker Hub in"),
        ([], "is not a configuration of Docker's client"),
        ({"auths": {"https://index.docker.io/v1/": {"auth": "!"}}}, "the stored login is not readable"),
        ({"credsStore": "no-such-helper"}, "docker-credential-no-such-helper: No such file or directory"),
        ({"credsStore": "../evil"}, "'../evil' is no credential helper"),
    ],
)
def test_a_login_that_is_not_there_is_said(
    config: object, error: str, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logged_in(monkeypatch, tmp_path, config)

    shown = ctl(*CREATE, "--with-registry-auth")

    assert shown.code == 1
    assert error in shown.err and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("nginx", "https://index.docker.io/v1/"),
        ("me/nginx:1", "https://index.docker.io/v1/"),
        ("docker.io/me/nginx", "https://index.docker.io/v1/"),
        ("localhost/x", "localhost"),
        ("reg.example/x@sha256:1", "reg.example"),
        ("[::1]:5000/x", "[::1]:5000"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def test_every_option_of_a_mount() -> None:
    bind = mounts.mount(
        "type=bind,src=/a,dst=/b,ro=true,bind-propagation=rslave,bind-recursive=writable,bind-create-src"
    )
    volume = mounts.mount(
        'source=v,target=/v,volume-driver=d,"volume-opt=o=a,b",volume-label=l=1,volume-nocopy,volume-subpath=s'
    )
    tmpfs = mounts.mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777,consistency=cached")

    assert bind.readonly and bind.bind_options == Mount.BindOptions(
        propagation=Mount.BindOptions.RSLAVE, readonlynonrecursive=True, createmountpoint=True
    )
    assert volume.type == Mount.VOLUME and volume.source == "v"
    assert volume.volume_options.driver_config.options == {"o": "a,b"}
    assert (volume.volume_options.nocopy, volume.volume_options.subpath) == (True, "s")
    assert (tmpfs.tmpfs_options.size_bytes, tmpfs.tmpfs_options.mode) == (1 << 20, 0o1777)
    assert tmpfs.consistency == Mount.CACHED


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (mounts.mount, "type=bind,source=/a"),
        (mounts.mount, "type=bind,target=/a"),
        (mounts.mount, "type=bind,source=a,target=/a"),
        (mounts.mount, "target=a"),
        (mounts.mount, "target=/a,nosuch=1"),
        (mounts.mount, "target=/a,nosuch"),
        (mounts.mount, "target=/a,readonly=maybe"),
        (mounts.mount, "target=/a,tmpfs-size=1m"),
        (mounts.mount, "type=tmpfs,source=/b,target=/a"),
        (mounts.mount, "type=tmpfs,target=/a,tmpfs-mode=9"),
        (mounts.mount, "type=bind,source=/a,target=/a,bind-propagation=up"),
        (mounts.mount, "type=bind,source=/a,target=/a,bind-recursive=up"),
        (mounts.mount, 'target="/a'),
        (service_values.attachment, "target=/a,mode=1"),
        (service_values.attachment, "source=a,uid=root"),
        (service_values.attachment, "source=a,mode=rw"),
        (container_flags.host, "a:b:c:d:x y"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_the_text(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|has") as raised:
        parse(text)

    assert repr(text) in str(raised.value)
