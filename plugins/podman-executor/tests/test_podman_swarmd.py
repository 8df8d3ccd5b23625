"""A real swarmd on a real Podman service: what the operator sees of what goes wrong, and that it heals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import short_folder
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine

RUN = ("--image", "redis:3.0.5", "--restart-delay", "200ms")


@pytest.fixture
def node(podman_engine: PodmanEngine) -> Iterator[Swarmd]:
    flags = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "podman")
    with short_folder() as folder:
        with swarmd(folder / "m1", *flags, "--engine-addr", podman_engine.address) as node:
            yield node
            if not podman_engine.is_running:
                podman_engine.start()
            for row in node.swarmctl.table("service", "ls"):
                node.swarmctl("service", "remove", row["ID"])

            def nothing_runs() -> None:
                assert not podman_engine.containers()

            wait_until(nothing_runs)


def replicas(node: Swarmd, service: str) -> str:
    return next(row["Replicas"] for row in node.swarmctl.table("service", "ls") if row["Name"] == service)


def test_a_service_with_dockers_default_log_driver_is_placed_and_runs(node: Swarmd) -> None:
    node.swarmctl("service", "create", "--name", "w", *RUN, "--log-driver", "json-file", "--log-opt", "max-size=1m")

    def runs() -> None:
        assert replicas(node, "w") == "1/1"

    wait_until(runs)


def test_a_reason_is_told_once_however_often_it_is_tried(node: Swarmd) -> None:
    node.swarmctl("service", "create", "--name", "w", *RUN, "--dir", "/no/such/folder")

    def is_tried_again() -> None:
        rows = node.swarmctl.table("service", "inspect", "--all", "w")
        reasons = [row["Error"] for row in rows if row.get("Error")]
        assert len(reasons) >= 3
        assert set(reasons) == {'container.dir: workdir "/no/such/folder" does not exist'}

    wait_until(is_tried_again)


def test_a_container_that_is_removed_by_hand_is_replaced(node: Swarmd, podman_engine: PodmanEngine) -> None:
    node.swarmctl("service", "create", "--name", "w", *RUN, "--wait")
    [name] = podman_engine.containers(service="w")
    podman_engine.podman("rm", "--force", "--time=0", name)

    def is_noticed() -> None:
        # Removed by force is killed first, and that may be seen before it is gone.
        page = node.swarmctl("service", "inspect", "--all", "w")
        assert "container destroyed" in page or "non-zero exit (137)" in page

    def is_replaced() -> None:
        assert [each for each in podman_engine.containers(service="w") if each != name]

    wait_until(is_noticed)
    wait_until(is_replaced)


def test_a_service_that_is_away_is_named_as_the_reason_and_what_waits_for_it_runs_when_it_is_back(
    node: Swarmd, podman_engine: PodmanEngine
) -> None:
    node.swarmctl("service", "create", "--name", "old", *RUN, "--wait")
    [name] = podman_engine.containers(service="old")
    podman_engine.stop(kill=True)
    node.swarmctl("service", "create", "--name", "new", *RUN)
    words = f"no answer from the Podman engine at {podman_engine.address}: No such file or directory"

    def is_said() -> None:
        assert words in node.swarmctl("service", "inspect", "new")

    def runs() -> None:
        assert (replicas(node, "new"), replicas(node, "old")) == ("1/1", "1/1")

    wait_until(is_said)
    podman_engine.start()
    wait_until(runs, seconds=30)
    assert podman_engine.containers(service="old") == [name]
