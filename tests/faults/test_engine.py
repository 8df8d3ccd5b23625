"""A real Docker Engine that can't pull an image, and one that stops and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.engines import DockerEngine

pytestmark = pytest.mark.engine

# The first process of a container is told to stop, and ends only if it listens to that.
RUN = ("--restart-delay", "200ms", "--command", "sh", "--args=-c", "--args", "trap 'exit 0' TERM; sleep 1000 & wait")


@pytest.fixture
def node(docker_engine: DockerEngine, folder: Path) -> Iterator[Swarmd]:
    """A manager that runs containers on the shared engine."""
    flags = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "docker")
    with swarmd(folder / "m1", *flags, "--engine-addr", docker_engine.address) as node:
        yield node
        for row in node.swarmctl.table("service", "ls"):
            node.swarmctl("service", "remove", row["ID"])

        def nothing_runs() -> None:
            assert not docker_engine.docker("ps", "-q")

        # An engine that was stopped while it made a container may not be able to remove it (overlay2: busy).
        wait_until(nothing_runs)


def tasks(node: Swarmd, *flags: str) -> list[dict[str, str]]:
    return node.swarmctl.table("task", "ls", *flags)


def test_an_image_that_can_not_be_pulled_is_rejected_in_the_engines_words_and_tried_again(node: Swarmd) -> None:
    node.swarmctl("service", "create", "--name", "gone", "--image", "localhost:1/nosuch:1.0", *RUN)

    def is_tried_again() -> None:
        rejected = [row for row in tasks(node, "--all") if row["Last State"].startswith("REJECTED")]
        assert len(rejected) >= 3
        page = node.swarmctl("service", "inspect", "gone")
        assert "REJECTED" in page
        assert "localhost:1" in page and "connection refused" in page, page

    wait_until(is_tried_again, seconds=30)
    assert node.swarmctl.table("service", "ls")[0]["Replicas"] == "0/1"

    # The operator mends it; what is right from then on runs.
    node.swarmctl("service", "update", "gone", "--image", "redis:3.0.5")

    def runs() -> None:
        assert node.swarmctl.table("service", "ls")[0]["Replicas"] == "1/1"

    wait_until(runs, seconds=30)


def test_a_policy_that_does_not_restart_leaves_a_rejected_task_alone(node: Swarmd) -> None:
    node.swarmctl(
        *("service", "create", "--name", "once", "--image", "localhost:1/nosuch:1.0"),
        *("--restart-condition", "none", "--command", "sleep"),
    )

    def is_rejected() -> None:
        assert [row["Last State"].split()[0] for row in tasks(node, "--all")] == ["REJECTED"]

    wait_until(is_rejected, seconds=30)
    # A service that is made later is placed and runs: the earlier one had its turn by then.
    node.swarmctl("service", "create", "--name", "later", "--image", "redis:3.0.5", *RUN)

    def later_runs() -> None:
        assert [row for row in tasks(node) if row["Service"] == "later.1" and row["Last State"].startswith("RUNNING")]

    wait_until(later_runs, seconds=30)
    assert len([row for row in tasks(node, "--all") if row["Service"].startswith("once")]) == 1


def test_an_engine_that_stops_and_comes_back(node: Swarmd, docker_engine: DockerEngine) -> None:
    node.swarmctl("service", "create", "--name", "web", "--image", "redis:3.0.5", "--replicas", "3", *RUN)

    def all_run() -> None:
        assert node.swarmctl.table("service", "ls")[0]["Replicas"] == "3/3"
        assert len(docker_engine.containers(service="web")) == 3

    wait_until(all_run, seconds=30)
    registered = node.log.count("registered with")

    docker_engine.stop()
    try:
        node.wait_says("ended the event stream")
        (row,) = node.swarmctl.table("node", "ls")
        assert row["Status"] == "READY"
    finally:
        docker_engine.start()

    wait_until(all_run, seconds=40)
    running = {row["ID"] for row in tasks(node) if row["Last State"].startswith("RUNNING")}
    labelled = docker_engine.docker("ps", "--format", '{{.Label "com.docker.swarm.task.id"}}').split()
    assert running == set(labelled) and len(labelled) == 3
    assert node.log.count("ended the event stream") == 1
    assert node.log.count("does not answer") <= 1
    assert node.log.count("registered with") == registered
    assert "the session ended" not in node.log and "Traceback" not in node.log
