"""Several executors on one node, and nodes that can do different things: on real engines and processes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmctl, Swarmd, swarmd, wait_until
from swarmcore.testing.engines import DockerEngine
from swarmcore.testing.faults import short_folder
from swarmcore.testing.podman_engines import PodmanEngine
from swarmcore.testing.ports import free_port

IMAGE = "redis:3.0.5"
SLEEP = ("--command", "sleep", "--args", "100000", "--restart-delay", "200ms")
CONTAINER = ("--image", IMAGE, "--stop-grace-period", "0s", *SLEEP)
PROCESS = ("--runtime", "process", *SLEEP)


def create(ctl: Swarmctl, name: str, *flags: str) -> None:
    ctl("service", "create", "--name", name, *flags)


def runs(ctl: Swarmctl, name: str, *, on: str = "", replicas: str = "1/1") -> Callable[[], None]:
    def check() -> None:
        (row,) = [row for row in ctl.table("service", "ls") if row["Name"] == name]
        assert row["Replicas"] == replicas, ctl("service", "inspect", name)
        if on:
            assert {task["Node"] for task in tasks(ctl, name)} == {on}

    return check


def tasks(ctl: Swarmctl, name: str) -> list[dict[str, str]]:
    return [row for row in ctl.table("task", "ls") if row["Service"].startswith(f"{name}.")]


def waits(ctl: Swarmctl, name: str, reason: str) -> Callable[[], None]:
    def check() -> None:
        assert f"no suitable node ({reason})" in ctl("task", "ls")
        assert f"no suitable node ({reason})" in ctl("service", "inspect", name)

    return check


def executors(ctl: Swarmctl, node: str) -> dict[str, list[str]]:
    return {
        each["runtime"]: each["abilities"]
        for each in json.loads(ctl("node", "inspect", node, "-o", "json"))["executors"]
    }


def cleared(manager: Swarmd, *workers: Swarmd) -> None:
    """Remove every service, and return when nothing is left of their tasks."""
    ctl = manager.swarmctl
    if names := [row["Name"] for row in ctl.table("service", "ls")]:
        ctl("service", "remove", *names)

    def gone() -> None:
        assert not ctl.table("task", "ls")
        for node in (manager, *workers):
            assert not list((node.state_dir / "executors" / "process" / "tasks").glob("*"))

    wait_until(gone, seconds=40)


@contextlib.contextmanager
def running(folder: Path, executor: str, engine: str = "") -> Iterator[Swarmd]:
    """A manager of its own, of whose tasks nothing is left."""
    with swarmd(folder / "m1", *flags("m1", executor), *(("--engine-addr", engine) if engine else ())) as node:
        try:
            yield node
        finally:
            cleared(node)


class LateSocket:
    """Where a node looks for its engine, which comes and goes."""

    def __init__(self, folder: Path, engine: Path) -> None:
        self._path = folder / "engine.sock"
        self._engine = engine
        self.address = f"unix://{self._path}"

    def appear(self) -> None:
        self._path.symlink_to(self._engine)

    def vanish(self) -> None:
        self._path.unlink()


def flags(name: str, executor: str) -> tuple[str, ...]:
    return ("--hostname", name, "--executor", executor, "--listen-remote-api", f"127.0.0.1:{free_port()}")


@pytest.mark.engine
def test_a_node_whose_engine_comes_later_runs_processes_meanwhile(docker_engine: DockerEngine) -> None:
    with short_folder() as folder:
        late = LateSocket(folder, docker_engine.socket)
        with running(folder, "docker,process", late.address) as node:
            ctl = node.swarmctl
            create(ctl, "p", *PROCESS)
            create(ctl, "c", *CONTAINER)
            wait_until(runs(ctl, "p"))
            wait_until(waits(ctl, "c", "no executor for 'container' tasks on 1 node"))
            assert list(executors(ctl, "m1")) == ["process"]
            said = re.findall(
                r"the executor for container tasks does not answer: no Docker engine answers at .*", node.log
            )
            assert len(said) == 1 and "the node goes on without" in said[0]

            late.appear()
            wait_until(runs(ctl, "c"), seconds=30)
            assert list(executors(ctl, "m1")) == ["container", "process"]
            (before,) = ids(docker_engine)
            process = tasks(ctl, "p")[0]["ID"]

            # Started again while the engine is away, it neither gives its container up nor starts another.
            node.stop()
            late.vanish()
            node.start()
            node.wait_ready()
            wait_until(
                lambda: _assert(len(re.findall("the node goes on without", node.log)) == 2, node.log), seconds=30
            )
            late.appear()
            wait_until(
                lambda: _assert("container tasks answers again" in node.log.rpartition("goes on without")[2], "")
            )
            wait_until(runs(ctl, "c"), seconds=30)
            assert ids(docker_engine) == [before]
            assert [row["ID"] for row in tasks(ctl, "p")] == [process]


def ids(engine: DockerEngine) -> list[str]:
    return [each["ID"] for each in engine.containers(service="c")]


def _assert(holds: bool, why: str) -> None:
    assert holds, why


@pytest.mark.engine
def test_podman_and_processes_on_one_node(podman_engine: PodmanEngine) -> None:
    with short_folder() as folder:
        with running(folder, "podman,process", podman_engine.address) as node:
            ctl = node.swarmctl
            create(ctl, "p", *PROCESS)
            create(ctl, "c", *CONTAINER)
            wait_until(runs(ctl, "p"), seconds=30)
            wait_until(runs(ctl, "c"), seconds=30)
            assert len(podman_engine.containers(service="c")) == 1
            assert {"exec", "secrets"} <= set(executors(ctl, "m1")["container"])


@pytest.fixture
def mixed(docker_engine: DockerEngine) -> Iterator[Swarmd]:
    """A manager with processes only, and a worker with Docker as well."""
    with short_folder() as folder, contextlib.ExitStack() as stack:
        manager = stack.enter_context(swarmd(folder / "m1", *flags("m1", "process")))
        stack.callback(lambda: cleared(manager))
        shown = manager.swarmctl("cluster", "inspect")
        token = dict(re.findall(r"(Worker|Manager)\s*: (SWMTKN-\S+)", shown))["Worker"]
        address = manager.swarmctl.table("node", "ls") and re.search(r"127\.0\.0\.1:\d+", " ".join(manager.flags))
        assert address
        join = ("--join-addr", address.group(), "--join-token", token, "--engine-addr", docker_engine.address)
        worker = stack.enter_context(swarmd(folder / "w1", *flags("w1", "docker,process"), *join))
        stack.callback(lambda: cleared(manager, worker))
        wait_until(lambda: _assert(len(executors(manager.swarmctl, "w1")) == 2, "w1 has not described itself"))
        yield manager


@pytest.mark.engine
def test_tasks_go_where_they_can_run_and_say_what_is_missing_where_they_can_not(mixed: Swarmd) -> None:
    ctl = mixed.swarmctl
    ctl("secret", "create", "password", stdin=b"hunter2")
    create(ctl, "spread", *PROCESS, "--replicas", "2")
    create(
        ctl,
        "web",
        *CONTAINER,
        "--replicas",
        "2",
        "--secret",
        "password",
        "--health-cmd",
        "true",
        "--health-interval",
        "300ms",
    )
    create(ctl, "limited", *PROCESS, "--memory-limit", "64m")
    create(ctl, "windows", *CONTAINER, "--isolation", "hyperv")
    create(ctl, "logged", *PROCESS, "--log-driver", "json-file")

    wait_until(runs(ctl, "spread", replicas="2/2"), seconds=30)
    wait_until(runs(ctl, "web", on="w1", replicas="2/2"), seconds=40)
    page = ctl("node", "inspect", "w1")
    said = re.search(
        r"process +: exec, healthcheck, host-ports, (limits, )?logs, (pids-limit, )?stats, ulimits\n", page
    )
    assert said, page
    if said[1]:
        wait_until(runs(ctl, "limited", replicas="1/1"))
    else:
        wait_until(waits(ctl, "limited", "executor without limits on 2 nodes"))
    wait_until(waits(ctl, "logged", "executor without log-drivers on 2 nodes"))

    def windows() -> None:
        shown = ctl("service", "inspect", "windows")
        assert "no executor for 'container' tasks on 1 node" in shown
        assert "executor without isolation on 1 node" in shown

    wait_until(windows)
    assert {row["Node"] for row in tasks(ctl, "spread")} == {"m1", "w1"}
