"""The cluster's settings, changed through any manager: every one shows them, and none is lost to another."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import Any

import pytest
from cryptography import x509

from swarmcore.testing.cluster import wait_until
from swarmcore.testing.machines import Machines

MANAGERS = ("m1", "m2", "m3")


def spec(group: Machines, by: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(group.nodes[by].swarmctl("cluster", "inspect", "-o", "json"))
    return dict(found["spec"])


def followers(group: Machines) -> list[str]:
    def found() -> list[str]:
        status = group.managers("m1")
        assert any("*" in words for words in status.values()), status
        return [name for name in MANAGERS if "*" not in status[name]]

    return wait_until(found)


def settings(group: Machines, by: str) -> tuple[str, str, str]:
    found = spec(group, by)
    return (
        str(found["orchestration"]["task_history_retention_limit"]),
        found["ca_config"]["node_cert_expiry"],
        found["dispatcher"]["heartbeat_period"],
    )


def change(group: Machines, by: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    return group.nodes[by].swarmctl.run("cluster", "update", *flags)


@pytest.mark.parametrize("which", [0, 1])
def test_a_follower_changes_settings_that_every_manager_shows(group: Machines, which: int) -> None:
    by = followers(group)[which]
    history, hours, period = (7 + which, 1000 + which, 6 + which)

    flags = ("--taskhistory", str(history), "--certexpiry", f"{hours}h", "--heartbeatperiod", f"{period}s")
    assert change(group, by, *flags).returncode == 0

    def is_shown() -> None:
        for name in MANAGERS:
            assert settings(group, name) == (str(history), f"{hours}h0m0s", f"{period}s")

    wait_until(is_shown)


def test_managers_that_change_different_settings_at_once_lose_none(group: Machines) -> None:
    flags = [("--taskhistory", "3"), ("--certexpiry", "720h"), ("--heartbeatperiod", "4s")]
    done: list[subprocess.CompletedProcess[bytes]] = []
    threads = [
        threading.Thread(target=lambda by=by, each=each: done.append(change(group, by, *each)))
        for by, each in zip(MANAGERS, flags, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    for name in MANAGERS:
        assert settings(group, name) == ("3", "720h0m0s", "4s")


def test_what_a_follower_refuses_it_refuses_in_the_leaders_words(group: Machines) -> None:
    by, before = followers(group)[0], settings(group, "m1")

    done = change(group, by, "--certexpiry", "1m")

    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: ") and "1h" in line.replace("1 h", "1h")
    assert settings(group, by) == before


def test_a_join_token_that_a_follower_rotates_ends_at_once_everywhere(group: Machines) -> None:
    by = followers(group)[0]
    old = group.token("m1", "worker")
    assert change(group, by, "--rotate-join-token", "worker").returncode == 0

    for name in MANAGERS:
        assert group.token(name, "worker") != old
    refused = group.nodes["m1"].folder / "refused"
    via = ("--join-addr", group.addresses[followers(group)[1]], "--join-token", old)
    done = subprocess.run(
        [str(group.nodes["m1"].process.args[0]), "-d", str(refused), "--executor", "process", *via],  # type: ignore[union-attr,index]
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert b"A valid join token is necessary" in done.stderr
    assert old.encode() not in done.stderr


def test_a_certificate_lives_as_long_as_a_follower_said(group: Machines) -> None:
    one, other = followers(group)
    assert change(group, one, "--certexpiry", "100h").returncode == 0
    node = group.join("w9", "worker", by=other)
    try:
        pem = (node.state_dir / "certificates" / "swarm-node.crt").read_bytes()
        left = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() - time.time()
        assert 98 * 3600 < left <= 102 * 3600
    finally:
        node.stop()
        defaults = ("--certexpiry", "2160h", "--taskhistory", "5", "--heartbeatperiod", "5s")
        assert change(group, one, *defaults).returncode == 0
    assert settings(group, "m3") == ("5", "2160h0m0s", "5s")
