"""A user's swarmd on the user's own Podman: nothing in it is root's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import short_folder
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine

RUN = ("--image", "redis:3.0.5", "--restart-delay", "200ms")
SHELL = ("--command", "sh", "--args=-c", "--args")


@pytest.fixture
def node(rootless_podman_engine: PodmanEngine) -> Iterator[Swarmd]:
    flags = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "podman")
    with short_folder() as folder:
        with swarmd(folder / "m1", *flags, "--engine-addr", rootless_podman_engine.address) as node:
            yield node
            for row in node.swarmctl.table("service", "ls"):
                node.swarmctl("service", "remove", row["ID"])

            def nothing_runs() -> None:
                assert not rootless_podman_engine.containers()

            wait_until(nothing_runs)


def task_of(node: Swarmd, service: str) -> str:
    return next(row["ID"] for row in node.swarmctl.table("task", "ls") if row["Service"] == f"{service}.1")


def test_a_service_with_a_secret_a_port_and_a_command_beside_it_runs_and_is_found_again(node: Swarmd) -> None:
    node.swarmctl("secret", "create", "password", stdin=b"hunter2")
    script = "cat /run/secrets/password; echo; id -u; trap 'exit 0' TERM; sleep 1000 & wait"
    node.swarmctl(
        *("service", "create", "--name", "web", *RUN, "--secret", "password", "--ports", "web:80:28080"),
        *(*SHELL, script, "--wait"),
    )

    def said() -> None:
        assert node.swarmctl("service", "logs", "--raw", "web") == "hunter2\n0\n"

    wait_until(said)
    task = task_of(node, "web")
    assert node.swarmctl("task", "exec", task, "--", "echo", "beside") == "beside\n"
    assert list(Path(os.environ["XDG_RUNTIME_DIR"]).glob("swarmcore-*/*/0"))

    node.kill()
    node.start()
    node.wait_ready()

    def runs_still() -> None:
        assert node.swarmctl.table("service", "ls")[0]["Replicas"] == "1/1"

    wait_until(runs_still)
    assert task_of(node, "web") == task


def test_what_a_user_can_not_have_is_said_where_the_user_looks(node: Swarmd) -> None:
    page = node.swarmctl("node", "inspect", "m1")
    node.swarmctl("service", "create", "--name", "limited", *RUN, "--memory-limit", "64m")
    node.swarmctl("service", "create", "--name", "low", *RUN, "--ports", "web:80:80")
    node.swarmctl("service", "create", "--name", "free", *RUN, "--wait")

    def is_said() -> None:
        limited, low = (node.swarmctl("service", "inspect", "--all", name) for name in ("limited", "low"))
        assert "executor without limits on 1 node" in limited
        assert "privileged port 80" in low

    wait_until(is_said)
    used = node.swarmctl.run("task", "stats", task_of(node, "free"))
    assert b"stats: the engine gives containers no cgroups of their own here" in used.stderr
    line = next(line for line in page.splitlines() if line.strip().startswith("container "))
    able = set(line.partition(":")[2].replace(",", " ").split())
    assert "exec" in able and not able & {"stats", "limits", "pids-limit", "swap"}
