"""Secrets, configs, networks, the cluster, plugins and JSON, through a socket."""

from __future__ import annotations

import datetime
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from swarmcore.api.specs_pb2 import NetworkSpec
from swarmcore.api.types_pb2 import IPAMConfig, PortConfig, TaskState
from swarmcore.cli.network import ipam_configs
from swarmcore.cli.plugins import short_list
from swarmcore.plugin.lock import PluginLock
from swarmcore.testing.control_socket import Ctl, FakeManager, a_task, three_nodes


def test_a_secret_comes_from_a_file_or_stdin_and_is_never_shown(manager: FakeManager, ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "s"
    file.write_bytes(b"hunter2\n")

    first = ctl("secret", "create", "one", "-f", str(file))
    second = ctl("secret", "create", "two", stdin=b"\x00\xff")
    shown = ctl("secret", "inspect", "one").out + ctl("secret", "inspect", "one", "-o", "json").out

    assert {secret.spec.data for secret in manager.all("secret")} == {b"hunter2\n", b"\x00\xff"}
    assert "hunter2" not in shown and f"ID                : {first.out}" in shown
    assert ctl("secret", "ls", "-q").out.split() == sorted([first.out.strip(), second.out.strip()])
    assert ctl("secret", "ls").out.splitlines()[0].split() == ["ID", "Name", "Driver", "Created"]
    assert ctl("secret", "rm", "one").out == first.out


def test_of_several_with_that_prefix_the_exact_name_is_meant(manager: FakeManager, ctl: Ctl) -> None:
    first = ctl("secret", "create", "one", stdin=b"x").out.strip()
    second = ctl("secret", "create", first[:5], stdin=b"x").out.strip()

    assert f": {second}\n" in ctl("secret", "inspect", first[:5]).out
    assert f": {first}\n" in ctl("secret", "inspect", first).out
    assert "ambiguous (2 matches found)" in ctl("secret", "inspect", first[:3]).err


def test_a_config_is_shown_with_what_it_holds_but_for_what_a_terminal_would_act_on(ctl: Ctl) -> None:
    ctl("config", "create", "c", stdin=b"listen 80;\n\x1b[2Jend\n")

    shown = ctl("config", "inspect", "c").out

    assert shown.endswith("Payload           : 19 bytes\n\nlisten 80;\n\N{REPLACEMENT CHARACTER}[2Jend\n")


def test_cluster_settings_change_one_by_one(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("cluster", "update", "default", "--log-driver", "gelf", "--log-opt", "tag=x")

    done = ctl(
        "cluster", "update", "default", "--taskhistory", "-1", "--certexpiry", "720h", "--heartbeatperiod", "10s"
    )

    spec = manager.one("cluster").spec
    assert (done.code, done.out) == (0, "cluster0\n")
    assert spec.orchestration.task_history_retention_limit == -1
    assert (spec.ca_config.node_cert_expiry.seconds, spec.dispatcher.heartbeat_period.seconds) == (720 * 3600, 10)
    assert spec.task_defaults.log_driver.name == "gelf"


def test_the_brake_is_set_shown_and_checked(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    shown = ctl("cluster", "inspect").out
    done = ctl("cluster", "update", "--brake", "share=30,wait=0")
    refused = ctl("cluster", "update", "--brake", "share=all")

    assert "share=50,window=1m,wait=10m,nodes=3" in shown
    assert done.code == 0
    assert manager.one("cluster").spec.annotations.labels["swarmcore.brake"] == "share=30,wait=0"
    assert "share=30,window=1m,wait=0,nodes=3" in ctl("cluster", "inspect").out
    assert refused.code == 2
    assert "the brake's share is a whole number from 1 to 99, and not 'all'" in refused.err


def test_the_clusters_log_driver_is_cleared_by_an_empty_one(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("cluster", "update", "--log-driver", "gelf")

    done = ctl("cluster", "update", "--log-driver", "")

    assert (done.code, done.err) == (0, "")
    assert not manager.one("cluster").spec.task_defaults.HasField("log_driver")


def test_a_rotated_token_is_printed(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    done = ctl("cluster", "update", "--rotate-join-token", "worker")

    assert done.out == "cluster0\nworker join token: SWMTKN-1-fresh-worker-1\n"
    assert manager.one("cluster").root_ca.join_tokens.manager == "SWMTKN-1-root-manager"


def test_the_unlock_key_is_printed_only_where_managers_are_locked(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    unlocked = ctl("cluster", "unlock-key", "default")
    locked = ctl("cluster", "update", "--autolock")

    assert unlocked.out.startswith("Managers are not locked")
    assert locked.out.startswith("cluster0\nManagers auto-locked.  Unlock key: SWMKEY-1-a2tra2")
    assert ctl("cluster", "unlock-key").out == locked.out.removeprefix("cluster0\n")
    assert ctl("cluster", "update", "--no-autolock").out == "cluster0\n"


def test_a_subnet_gets_the_gateway_and_range_that_lie_in_it() -> None:
    assert ipam_configs(("10.1.0.0/16", "fd00::/64"), ("fd00::1", "10.1.0.1"), ("10.1.2.0/24",)) == [
        IPAMConfig(family=IPAMConfig.IPV4, subnet="10.1.0.0/16", gateway="10.1.0.1", range="10.1.2.0/24"),
        IPAMConfig(family=IPAMConfig.IPV6, subnet="fd00::/64", gateway="fd00::1"),
    ]
    with pytest.raises(ValueError, match=r"'10\.9\.0\.1' lies in no --subnet"):
        ipam_configs(("10.1.0.0/16",), ("10.9.0.1",), ())


def test_a_network_is_created_listed_and_removed(manager: FakeManager, ctl: Ctl) -> None:
    created = ctl("network", "create", "--name", "backend")

    assert manager.one("network").spec == NetworkSpec(annotations=manager.one("network").spec.annotations)
    assert "backend" in ctl("network", "ls").out
    assert "Name              : backend\n" in ctl("network", "inspect", created.out.strip()).out
    assert ctl("network", "rm", "backend").out == "backend\n"


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_an_empty_standard_input_is_told_before_anything_is_sent(ctl: Ctl, kind: str) -> None:
    refused = ctl(kind, "create", "c")

    assert refused.code == 1
    assert refused.err == f"Error: standard input was empty: pipe the {kind} in, or name a file with --file\n"


def test_a_plugin_lock_lists_what_is_installed_and_asks_no_manager(ctl: Ctl, tmp_path: Path) -> None:
    printed = ctl("--socket", "/nonexistent.sock", "plugins", "lock")
    (tmp_path / "plugins.lock").write_text(printed.out)

    lock = PluginLock.read(tmp_path / "plugins.lock")

    assert printed.code == 0
    assert "constraint-filter" in [plugin.name for plugin in lock.plugins]
    assert all(plugin.version and plugin.record.startswith("sha256:") for plugin in lock.plugins)


def test_several_capabilities_of_a_kind_take_little_room() -> None:
    assert short_list(["filter/platform", "filter/resource", "join/psk"]) == "filter/{platform,resource}, join/psk"
    assert short_list([]) == ""


def test_plugins_are_listed_with_what_became_of_them(manager: FakeManager, ctl: Ctl) -> None:
    shown = ctl("plugins").out

    assert shown == (
        "manager docker1   API 1.0   set #14   1 ok, 1 error\n"
        "NAME               STATE  VERSION  PROVIDES           ORDER  CALLS  P99    NOTE\n"
        "broken             error  0.3.0    -                  -      -      -      "
        "ModuleNotFoundError: No module named 'nosuch'\n"
        "constraint-filter  ok     1.0.3    filter/constraint  300    1.2M   31 µs  "
        "no longer on disk, restart pending\n"
    )
    assert "swarmcore_scheduler_filters" in ctl("plugins", "--hooks").out
    assert "Traceback (most recent call last):" in ctl("plugins", "inspect", "broken").out
    assert json.loads(ctl("plugins", "-o", "json").out)["plugins"][0]["name"] == "constraint-filter"


def test_json_has_names_for_enums_and_numbers_for_numbers(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("service", "create", "--name", "web", "--image", "x", "--replicas", "2", "--update-delay", "20s")
    service = manager.one("service")
    manager.put(a_task("t1", service, 1, node="91c04eb0s86k8", state=TaskState.RUNNING))

    (node, *_) = json.loads(ctl("node", "ls", "-o", "json").out)
    shown = json.loads(ctl("service", "inspect", "web", "-o", "json").out)
    listed = json.loads(ctl("service", "ls", "-o", "json").out)

    assert (node["spec"]["availability"], node["status"]["state"]) == ("ACTIVE", "READY")
    assert shown["spec"]["replicated"]["replicas"] == 2
    assert shown["spec"]["update"]["delay"] == "20s"
    assert shown["tasks"][0]["status"]["state"] == "RUNNING"
    assert shown["meta"]["created_at"] == "2023-11-14T22:13:20Z"
    assert listed[0]["running_tasks"] == 1


def test_task_inspect_shows_exit_code_ports_and_the_tasks_before(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("service", "create", "--name", "web", "--image", "x")
    service = manager.one("service")
    failed = a_task("t1", service, 1, node="91c04eb0s86k8", state=TaskState.FAILED)
    failed.desired_state = TaskState.SHUTDOWN
    failed.status.err = "task: non-zero exit (3)"
    failed.status.container.container_id = "abc"
    failed.status.container.exit_code = 3
    failed.status.port_status.ports.append(PortConfig(target_port=80, published_port=8080))
    manager.put(failed, a_task("t2", service, 1, node="91c04eb0s86k8"))

    shown = ctl("task", "inspect", "t1").out

    assert " Error            : task: non-zero exit (3)\n ContainerID      : abc\n ExitCode         : 3\n" in shown
    assert "0.0.0.0:8080->80/tcp" in shown
    assert "===> Task Parents\n" in shown and "t2" in shown.partition("===>")[2]
    assert ctl("task", "ls", "-q").out == "t2\n"
    assert set(ctl("task", "ls", "-a", "-q").out.split()) == {"t1", "t2"}


def test_a_service_tells_what_went_wrong_last(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("service", "create", "--name", "web", "--image", "x")
    service = manager.one("service")
    for number, error in ((1, "the first"), (2, "no such image\nin the registry"), (3, "")):
        ended = a_task(f"t{number}", service, 1, node="91c04eb0s86k8", state=TaskState.REJECTED)
        ended.desired_state = TaskState.SHUTDOWN
        ended.status.err = error
        ended.status.timestamp.seconds += number
        manager.put(ended)
    manager.put(a_task("t4", service, 1, node="91c04eb0s86k8"))

    shown, every = ctl("service", "inspect", "web").out, ctl("service", "inspect", "web", "-a").out

    (line,) = (line for line in shown.splitlines() if line.startswith("Last failure"))
    assert re.fullmatch(r"Last failure *: REJECTED .* on docker2: no such image in the registry", line)
    assert "Last failure" not in every


def test_ids_are_shown_where_names_are_not_wanted(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("service", "create", "--name", "web", "--image", "x")
    service = manager.one("service")
    manager.put(a_task("t1", service, 1, node="91c04eb0s86k8"))

    assert "docker2" in ctl("task", "ls").out
    assert ctl("task", "ls", "-n").out.splitlines()[2].split()[-1] == "91c04eb0s86k8"


def certificate_for(name: str) -> tuple[bytes, bytes]:
    """A key and a certificate that signs itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def test_the_socket_is_served_with_tls_to_who_asks_for_it(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    assert "docker1" in ctl("--ca-cert", str(manager.root_ca), "node", "ls").out


def test_a_socket_that_speaks_tls_only_needs_the_clusters_root(
    bare_ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.pem").write_bytes(certificate_for("swarm-manager")[1])
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_secure_port("unix:tls.sock", grpc.ssl_server_credentials([certificate_for("swarm-manager")]))
    server.start()
    try:
        plain = bare_ctl("-s", "tls.sock", "node", "ls")
        mistrusted = bare_ctl("-s", "tls.sock", "--ca-cert", "other.pem", "node", "ls")
    finally:
        server.stop(None).wait()

    assert (plain.code, plain.err.count("\n")) == (1, 1) and "needs --ca-cert" in plain.err
    assert (mistrusted.code, mistrusted.err.count("\n")) == (1, 1) and "is not trusted" in mistrusted.err


def test_tasks_of_a_job_are_listed_like_others(manager: FakeManager, ctl: Ctl) -> None:
    ctl("service", "create", "--name", "once", "--image", "job:1")
    task = a_task("t1", manager.one("service"), 1)
    task.desired_state = TaskState.COMPLETE
    manager.put(task)

    assert "t1" in ctl("task", "ls").out
    assert "t1" in ctl("service", "inspect", "once").out


def test_a_rotated_unlock_key_is_printed_and_needs_managers_that_are_locked(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    refused = ctl("cluster", "unlock-key", "--rotate")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("Error: managers are not locked, so there is no unlock key")
    assert ctl("cluster", "unlock-key", "-q").out == ""

    ctl("cluster", "update", "--autolock")
    assert ctl("cluster", "unlock-key", "--rotate").out.startswith("Managers auto-locked.  Unlock key: SWMKEY-1-")
    assert ctl("cluster", "unlock-key", "-q").out == ctl("cluster", "unlock-key", "--rotate", "-q").out
