"""A node whose engine is Podman: the same session as on Docker, and what happens when agent or engine go away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import short_folder
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine

# The first process of a container is told to stop, and ends only if it listens to that.
RUN = ("--restart-delay", "200ms", "--command", "sh", "--args=-c", "--args", "trap 'exit 0' TERM; sleep 1000 & wait")


@pytest.fixture
def node(podman_engine: PodmanEngine) -> Iterator[Swarmd]:
    """A manager that runs containers on the shared engine, which it finds by itself to be Podman."""
    flags = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "auto")
    with short_folder() as folder, swarmd(folder / "m1", *flags, "--engine-addr", podman_engine.address) as node:
        yield node
        for row in node.swarmctl.table("service", "ls"):
            node.swarmctl("service", "remove", row["ID"])

        def nothing_runs() -> None:
            assert not podman_engine.containers()

        wait_until(nothing_runs, seconds=40)


def running(engine: PodmanEngine, service: str = "web") -> dict[str, tuple[str, str]]:
    """Image and time of start of each running container, by its id."""
    ids = engine.podman("ps", "-q", "--no-trunc", "--filter", f"label=com.docker.swarm.service.name={service}").split()
    found: list[dict[str, Any]] = json.loads(engine.podman("inspect", *ids)) if ids else []
    return {each["Id"]: (each["ImageName"].rpartition("/")[2], each["State"]["StartedAt"]) for each in found}


def all_run(node: Swarmd, engine: PodmanEngine, count: int, image: str = "redis:3.0.5") -> Callable[[], None]:
    def check() -> None:
        assert node.swarmctl.table("service", "ls")[0]["Replicas"] == f"{count}/{count}"
        assert [found for found, _ in running(engine).values()] == [image] * count

    return check


def test_a_session_on_podman(node: Swarmd, podman_engine: PodmanEngine) -> None:
    node.swarmctl("secret", "create", "password", stdin=b"hunter2")
    node.swarmctl(
        *("service", "create", "--name", "web", "--image", "redis:3.0.5", "--replicas", "2"),
        *("--secret", "password", "--env", "WHERE={{.Node.Hostname}}", "--memory-limit", "64m", *RUN),
    )
    wait_until(all_run(node, podman_engine, 2), seconds=30)
    (first, _) = running(podman_engine)
    said = podman_engine.podman("exec", first, "sh", "-c", "cat /run/secrets/password; echo :$WHERE")
    assert said == "hunter2:m1\n"

    node.swarmctl("service", "update", "web", "--replicas", "4")
    wait_until(all_run(node, podman_engine, 4), seconds=30)
    node.swarmctl("service", "update", "web", "--image", "redis:3.0.6", "--update-parallelism", "2")
    wait_until(all_run(node, podman_engine, 4, "redis:3.0.6"), seconds=60)

    # What can't be fetched is rejected, and the service goes back to what it was.
    node.swarmctl(
        *("service", "update", "web", "--image", "127.0.0.1:1/nosuch:1", "--update-on-failure", "rollback"),
        *("--update-monitor", "2s"),
    )

    def is_back() -> None:
        assert "rollback completed" in node.swarmctl("service", "inspect", "web").lower().replace("_", " ")
        all_run(node, podman_engine, 4, "redis:3.0.6")()

    wait_until(is_back, seconds=60)
    node.swarmctl("service", "update", "web", "--replicas", "1")
    wait_until(all_run(node, podman_engine, 1, "redis:3.0.6"), seconds=60)


def test_an_agent_that_was_killed_finds_its_containers_and_restarts_none(
    node: Swarmd, podman_engine: PodmanEngine
) -> None:
    node.swarmctl("service", "create", "--name", "web", "--image", "redis:3.0.5", "--replicas", "5", *RUN)
    wait_until(all_run(node, podman_engine, 5), seconds=40)
    before = running(podman_engine)

    node.kill()
    assert running(podman_engine) == before
    node.start()
    node.wait_ready()

    wait_until(all_run(node, podman_engine, 5), seconds=20)
    assert running(podman_engine) == before
    assert len(node.swarmctl.table("task", "ls", "--all")) == 5


def test_a_container_that_was_removed_by_hand_is_noticed(node: Swarmd, podman_engine: PodmanEngine) -> None:
    node.swarmctl("service", "create", "--name", "web", "--image", "redis:3.0.5", "--replicas", "2", *RUN)
    wait_until(all_run(node, podman_engine, 2), seconds=30)
    lost = next(iter(running(podman_engine)))

    podman_engine.podman("rm", "--force", "--time=0", lost)

    def is_noticed() -> None:
        states = [row["Last State"].split()[0] for row in node.swarmctl.table("task", "ls", "--all")]
        assert "FAILED" in states, states

    wait_until(is_noticed)
    wait_until(all_run(node, podman_engine, 2), seconds=30)


@pytest.mark.parametrize("kill", [False, True])
def test_a_service_of_podmans_that_ends_and_comes_back_ends_no_task(
    node: Swarmd, podman_engine: PodmanEngine, kill: bool
) -> None:
    node.swarmctl("service", "create", "--name", "web", "--image", "redis:3.0.5", "--replicas", "3", *RUN)
    wait_until(all_run(node, podman_engine, 3), seconds=30)
    before = running(podman_engine)
    lost = next(iter(before))
    registered = node.log.count("registered with")

    podman_engine.stop(kill=kill)
    try:
        node.wait_says("ended the event stream")
        # One ends while nobody can be told.
        podman_engine.podman("kill", lost)
        node.swarmctl("service", "update", "web", "--replicas", "4")
    finally:
        podman_engine.start()

    wait_until(all_run(node, podman_engine, 4), seconds=40)
    assert before.items() - running(podman_engine).items() == {(lost, before[lost])}
    assert node.log.count("registered with") == registered
    assert "Traceback" not in node.log
