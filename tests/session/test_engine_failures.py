"""What becomes of the work when an engine, a node or an image fails: two swarmd nodes and a stock engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conftest import require
from swarmcore.testing import engines
from swarmcore.testing.cluster import wait_until
from swarmcore.testing.three_hosts import Container, Swarm, engine, three_hosts

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine failures")]

IMAGE = "redis:3.0.5"
EVERYWHERE = {"docker1", "docker2", "docker3"}


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    require(engines.missing_engine() or engines.missing_namespaces())
    with three_hosts(IMAGE) as made:
        yield made


@pytest.fixture
def six(swarm: Swarm) -> Iterator[list[Container]]:
    """A service of six containers, two on each host."""
    flags = ("--restart-delay", "0s", "--replicas", "6")
    swarm.ctl("service", "create", "--name", "six", "--image", IMAGE, *flags)
    yield swarm.wait_running("six", IMAGE, 6, hosts=EVERYWHERE)
    swarm.ctl("service", "remove", "six")
    swarm.wait_gone("six")


def wait_tasks(swarm: Swarm, containers: list[Container]) -> None:
    """Return once the manager's list is the engines' list."""

    def same() -> None:
        rows = swarm.ctl.table("service", "inspect", "six")
        shown = {(row["Task ID"], row["Node"]) for row in rows if row["Last State"].startswith("RUNNING ")}
        assert shown == {(each.task, each.host) for each in containers}

    wait_until(same)


def test_a_stock_engine_that_leaves_at_work_takes_nothing_with_it_and_comes_back_as_a_new_node(
    swarm: Swarm, six: list[Container]
) -> None:
    before = swarm.nodes()["docker3"]["ID"]

    swarm.stock.docker("swarm", "leave")
    swarm.wait_nodes("READY", "READY", "DOWN")
    moved = swarm.wait_running("six", IMAGE, 6, hosts={"docker1", "docker2"})
    assert {each.id for each in six if each.host != "docker3"} <= {each.id for each in moved}
    swarm.ctl("node", "rm", before)

    swarm.join_stock()
    swarm.wait_nodes("READY", "READY", "READY")
    assert swarm.nodes()["docker3"]["ID"] != before
    swarm.ctl("service", "update", "six", "--replicas", "9")
    grown = swarm.wait_running("six", IMAGE, 9, hosts=EVERYWHERE)
    assert [each.host for each in grown].count("docker3") == 3
    assert {each.id for each in moved} <= {each.id for each in grown}


def test_the_work_of_a_killed_stock_engine_is_done_elsewhere_and_not_twice_when_it_is_back(
    swarm: Swarm, six: list[Container]
) -> None:
    swarm.stock.stop(kill=True)

    swarm.wait_nodes("READY", "READY", "DOWN")
    moved = swarm.wait_running("six", IMAGE, 6, hosts={"docker1", "docker2"})
    stayed = {each.id for each in six if each.host != "docker3"}
    assert stayed <= {each.id for each in moved}

    swarm.stock.start()
    swarm.wait_nodes("READY", "READY", "READY", seconds=30)
    assert swarm.wait_running("six", IMAGE, 6, hosts={"docker1", "docker2"}) == moved
    wait_tasks(swarm, moved)


def test_a_node_that_was_down_while_its_containers_ran_on_stops_what_was_replaced(
    swarm: Swarm, six: list[Container]
) -> None:
    swarm.worker.kill()

    swarm.wait_nodes("READY", "DOWN", "READY")
    both = swarm.wait_running("six", IMAGE, 8, hosts=EVERYWHERE)
    assert {each.id for each in six} < {each.id for each in both}

    swarm.worker.start()
    swarm.worker.wait_ready()
    left = swarm.wait_running("six", IMAGE, 6, hosts={"docker1", "docker3"})
    assert [each for each in both if each.host != "docker2"] == left
    wait_tasks(swarm, left)


def test_an_engine_that_stops_under_swarmd_costs_its_containers_and_no_session(
    swarm: Swarm, six: list[Container]
) -> None:
    sessions = swarm.worker.log.count("registered with manager")
    docker2 = engine(swarm.hosts[1])

    docker2.stop()
    swarm.worker.wait_says("the Docker engine at")
    assert swarm.nodes()["docker2"]["Status"] == "READY"
    docker2.start()

    after = swarm.wait_running("six", IMAGE, 6)
    assert {each.id for each in six if each.host != "docker2"} <= {each.id for each in after}
    wait_tasks(swarm, after)
    assert swarm.worker.log.count("registered with manager") == sessions
    assert "answers again" in swarm.worker.log


@pytest.mark.parametrize("host", ["docker2", "docker3"])
def test_an_image_that_no_registry_gives_is_told_in_the_engines_words_and_another_one_heals_it(
    swarm: Swarm, host: str
) -> None:
    flags = ("--constraint", f"node.hostname=={host}", "--restart-delay", "1s")
    swarm.ctl("service", "create", "--name", "typo", "--image", "redis:nosuch", *flags)

    def told() -> None:
        rows = swarm.ctl.table("service", "inspect", "--all", "typo")
        rejected = [row for row in rows if row["Last State"].startswith("REJECTED")]
        assert len(rejected) >= 2, rows
        assert {row["Node"] for row in rejected} == {host}
        assert all(row.get("Error") for row in rejected)

    wait_until(told)
    assert swarm.containers("typo", every=True) == []
    swarm.ctl("service", "update", "typo", "--image", IMAGE)
    swarm.wait_running("typo", IMAGE, 1, hosts={host})
    swarm.ctl("service", "remove", "typo")
    swarm.wait_gone("typo")


def test_nothing_of_it_was_a_surprise(swarm: Swarm) -> None:
    for node in (swarm.manager, swarm.worker):
        assert "Traceback" not in node.log
        assert [line for line in node.log.splitlines() if "level=error" in line] == []
    assert swarm.stock_complaints() == []
