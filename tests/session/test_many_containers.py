"""An agent that was killed beside many containers: it takes all of them up again, and soon."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.engines import DockerEngine
from swarmcore.testing.faults import short_folder

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

COUNT = 50
FOUND_SECONDS = 3.0


@pytest.fixture
def node(docker_engine: DockerEngine) -> Iterator[Swarmd]:
    flags = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--engine-addr", docker_engine.address)
    with short_folder() as folder, swarmd(folder / "m1", *flags) as node:
        yield node
        if node.swarmctl.table("service", "ls"):
            node.swarmctl("service", "remove", "many")

        def nothing_runs() -> None:
            assert docker_engine.containers(service="many") == []

        wait_until(nothing_runs, seconds=90)


def runs(engine: DockerEngine) -> dict[str, str]:
    """When each container was started, by its id."""
    ids = [each["ID"] for each in engine.containers(service="many")]
    found: list[dict[str, Any]] = json.loads(engine.docker("inspect", *ids)) if ids else []
    return {each["Id"]: each["State"]["StartedAt"] for each in found}


def test_fifty_containers_are_found_again_within_seconds_and_none_is_started_anew(
    node: Swarmd, docker_engine: DockerEngine
) -> None:
    node.swarmctl("service", "create", "--name", "many", "--image", "redis:3.0.5", "--replicas", str(COUNT))

    def all_run() -> None:
        assert node.swarmctl.table("service", "ls")[0]["Replicas"] == f"{COUNT}/{COUNT}"

    wait_until(all_run, seconds=120)
    before = runs(docker_engine)
    assert len(before) == COUNT

    node.kill()
    began = time.monotonic()
    node.start()
    node.wait_says(f"finding {COUNT} tasks of the last run again")
    node.wait_says("looked for all of them in", seconds=60)
    since_start = time.monotonic() - began
    node.wait_ready()
    wait_until(all_run, seconds=60)

    found = re.findall(r"looked for all of them in ([\d.]+) s", node.log)
    print(f"{COUNT} containers looked for in {found[-1]} s, {since_start:.2f} s after the agent's process was started")
    assert float(found[-1]) <= FOUND_SECONDS
    assert runs(docker_engine) == before
    assert len(node.swarmctl.table("task", "ls", "--all")) == COUNT
