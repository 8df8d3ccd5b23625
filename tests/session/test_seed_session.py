"""The operator's session on three real hosts, judged by the engines' own `docker ps` and `docker inspect`.

docker1 runs swarmd and its manager, docker2 runs swarmd, docker3 is a stock Docker Engine that joined by
`docker swarm join`. The tests follow one another as the session does; each cleans up its services.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import require
from swarmcore.testing import engines
from swarmcore.testing.cluster import SwarmctlError, wait_until
from swarmcore.testing.engines import Host
from swarmcore.testing.three_hosts import Container, Swarm, container_events, engine, three_hosts

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("seed session")]

IMAGES = ("redis:3.0.5", "redis:3.0.6", "redis:3.0.7")
ID = re.compile(r"[0-9a-z]{25}")
NODE_COLUMNS = ["ID", "Name", "Membership", "Status", "Availability", "Manager status"]
SERVICE_COLUMNS = ["ID", "Name", "Image", "Replicas"]
TASK_COLUMNS = ["Task ID", "Service", "Slot", "Image", "Desired State", "Last State", "Node"]


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    require(engines.missing_engine() or engines.missing_namespaces())
    with three_hosts(*IMAGES) as made:
        yield made


def test_all_three_are_nodes_whether_swarmd_or_a_stock_engine(swarm: Swarm) -> None:
    listed = swarm.nodes()

    assert list(listed) == ["docker1", "docker2", "docker3"]
    assert all(list(row) == NODE_COLUMNS and ID.fullmatch(row["ID"]) for row in listed.values())
    shown = {name: [row[column] for column in NODE_COLUMNS[2:]] for name, row in listed.items()}
    assert shown == {
        "docker1": ["ACCEPTED", "READY", "ACTIVE", "REACHABLE *"],
        "docker2": ["ACCEPTED", "READY", "ACTIVE", ""],
        "docker3": ["ACCEPTED", "READY", "ACTIVE", ""],
    }
    assert listed["docker3"]["ID"] == swarm.stock.docker("info", "--format", "{{.Swarm.NodeID}}").strip()


def test_the_session(swarm: Swarm) -> None:
    ctl = swarm.ctl
    hosts = {"docker1", "docker2", "docker3"}

    service = ctl("service", "create", "--name", "redis", "--image", "redis:3.0.5").strip()
    assert ID.fullmatch(service)
    swarm.wait_running("redis", "redis:3.0.5", 1)
    wait_listed(swarm, "redis", {"ID": service, "Name": "redis", "Image": "redis:3.0.5", "Replicas": "1/1"})

    ctl("service", "update", "redis", "--replicas", "6")
    first = swarm.wait_running("redis", "redis:3.0.5", 6, hosts=hosts)
    assert sorted(each.host for each in first) == sorted([*hosts, *hosts])
    assert [each.slot for each in first] == [1, 2, 3, 4, 5, 6]
    assert [each.name for each in first] == [f"redis.{each.slot}.{each.task}" for each in first]
    assert_page(swarm, service, "redis:3.0.5", first)

    ctl("service", "update", "redis", "--image", "redis:3.0.6")
    second = swarm.wait_running("redis", "redis:3.0.6", 6)
    assert_replaced_at_once(swarm, first, second)

    ctl("service", "update", "redis", "--image", "redis:3.0.7", "--update-parallelism", "3", "--update-delay", "4s")
    third = swarm.wait_running("redis", "redis:3.0.7", 6)
    assert_replaced_in_threes(swarm, second, third, delay=4.0)

    ctl("node", "drain", "docker1")
    drained = swarm.wait_running("redis", "redis:3.0.7", 6, hosts={"docker2", "docker3"})
    stayed = [each for each in third if each.host != "docker1"]
    assert {each.id for each in stayed} <= {each.id for each in drained}
    assert swarm.nodes()["docker1"]["Availability"] == "DRAIN"
    assert engine(swarm.hosts[0]).containers() == []

    ctl("node", "activate", "docker1")
    ctl("service", "remove", "redis")
    swarm.wait_gone("redis")
    assert ctl("service", "ls", "-q") == ""


def wait_listed(swarm: Swarm, service: str, row: dict[str, str]) -> None:
    def listed() -> None:
        (found,) = [each for each in swarm.ctl.table("service", "ls") if each["Name"] == service]
        assert found == row

    wait_until(listed)


def assert_page(swarm: Swarm, service: str, image: str, containers: list[Container]) -> None:
    """`service inspect` shows what the engines run, in the session's format."""

    def shown() -> str:
        page = swarm.ctl("service", "inspect", "redis")
        assert f"Replicas          : {len(containers)}/{len(containers)}\n" in page
        return page

    page = wait_until(shown)
    assert page.startswith(
        f"ID                : {service}\n"
        "Name              : redis\n"
        f"Replicas          : {len(containers)}/{len(containers)}\n"
        "Template\n"
        " Container\n"
        f"  Image           : {image}\n"
    )
    table = swarm.ctl.table("service", "inspect", "redis")
    assert [list(row) for row in table] == [TASK_COLUMNS] * len(containers)
    shown_tasks = [(row["Task ID"], row["Slot"], row["Image"], row["Desired State"], row["Node"]) for row in table]
    assert shown_tasks == [(each.task, str(each.slot), image, "RUNNING", each.host) for each in containers]
    assert all(re.fullmatch(r"RUNNING .+ ago", row["Last State"]) for row in table)


def assert_replaced_at_once(swarm: Swarm, before: list[Container], after: list[Container]) -> None:
    """Every old container ended before its successor started, and no slot waited for another."""
    ended = {each.id: each for each in swarm.containers("redis", every=True)}
    for old, new in zip(before, after, strict=True):
        assert old.slot == new.slot and old.task != new.task
        assert ended[old.id].finished < new.started
    assert max(ended[old.id].finished for old in before) < min(ended[old.id].finished for old in before) + 3
    assert max(each.started for each in after) < min(each.started for each in after) + 3


def assert_replaced_in_threes(swarm: Swarm, before: list[Container], after: list[Container], *, delay: float) -> None:
    """Three at a time, the second three `delay` after the first, and never fewer than three at work."""
    starts = sorted(each.started for each in after)
    assert starts[2] - starts[0] < delay
    assert starts[3] - starts[0] >= delay
    assert starts[5] - starts[3] < delay
    assert least_at_work(swarm, "redis", since=max(each.started for each in before)) >= 3


def least_at_work(swarm: Swarm, service: str, *, since: float) -> int:
    """How many containers of the service ran at the worst moment since then, by the engines' times."""
    every = swarm.containers(service, every=True)
    steps = [(each.started, 1) for each in every]
    steps += [(each.finished, -1) for each in every if not each.is_running]
    at_first = sum(step for moment, step in steps if moment <= since)
    return min(itertools.accumulate((step for moment, step in sorted(steps) if moment > since), initial=at_first))


def test_killing_swarmd_on_both_hosts_touches_no_container(swarm: Swarm) -> None:
    swarm.ctl("service", "create", "--name", "calm", "--image", "redis:3.0.5", "--replicas", "6")
    before = swarm.wait_running("calm", "redis:3.0.5", 6, hosts={"docker1", "docker2", "docker3"})
    since = time.time()

    swarm.manager.kill()
    swarm.worker.kill()
    assert swarm.containers("calm") == before
    swarm.manager.start()
    swarm.worker.start()
    swarm.manager.wait_ready()
    swarm.worker.wait_ready()

    swarm.wait_nodes("READY", "READY", "READY")
    wait_listed_tasks(swarm, "calm", {(each.task, each.host) for each in before})
    assert swarm.containers("calm", every=True) == before
    assert all(each.restarts == 0 for each in before)
    assert [container_events(host, since) for host in swarm.hosts] == [[], [], []]
    swarm.ctl("service", "remove", "calm")
    swarm.wait_gone("calm")


def test_an_update_goes_on_after_both_were_killed_in_the_middle_of_it(swarm: Swarm) -> None:
    flags = ("--update-parallelism", "2", "--update-delay", "2s", "--update-monitor", "1s")
    swarm.ctl("service", "create", "--name", "moving", "--image", "redis:3.0.5", "--replicas", "6", *flags)
    before = swarm.wait_running("moving", "redis:3.0.5", 6, hosts={"docker1", "docker2", "docker3"})
    swarm.ctl("service", "update", "moving", "--image", "redis:3.0.6")

    def begun() -> None:
        assert [each.image for each in swarm.containers("moving")].count("redis:3.0.6") == 2

    wait_until(begun)
    swarm.manager.kill()
    swarm.worker.kill()
    at_kill = swarm.containers("moving", every=True)
    swarm.manager.start()
    swarm.worker.start()
    after = swarm.wait_running("moving", "redis:3.0.6", 6, seconds=30)

    left = {each.id: each for each in swarm.containers("moving", every=True)}
    for each in at_kill:
        if each.image == "redis:3.0.6" and each.is_running:
            assert left[each.id] == each
        elif each.is_running:
            assert left[each.id].started == each.started and left[each.id].restarts == 0
    starts = sorted(each.started for each in after)
    assert starts[4] - starts[2] >= 2
    assert least_at_work(swarm, "moving", since=max(each.started for each in before)) >= 4

    def completed() -> None:
        assert re.search(r"State\s*: COMPLETED", swarm.ctl("service", "inspect", "moving"))

    wait_until(completed)
    swarm.ctl("service", "remove", "moving")
    swarm.wait_gone("moving")


def wait_listed_tasks(swarm: Swarm, service: str, wanted: set[tuple[str, str]]) -> None:
    """Return once the manager counts exactly these tasks as running, on these nodes."""

    def listed() -> None:
        rows = swarm.ctl.table("service", "inspect", service)
        running = {(row["Task ID"], row["Node"]) for row in rows if row["Last State"].startswith("RUNNING ")}
        assert running == wanted

    wait_until(listed)


def test_secrets_and_configs_reach_our_nodes_and_the_stock_engine(swarm: Swarm, tmp_path: Path) -> None:
    (tmp_path / "settings").write_bytes(b"maxmemory 1gb\n\x00\xff")
    swarm.ctl("secret", "create", "password", stdin=b"correct horse\n")
    swarm.ctl("config", "create", "settings", "-f", str(tmp_path / "settings"))

    files = ("--secret", "password", "--secret", "password:renamed", "--config", "settings:/etc/redis.conf")
    swarm.ctl("service", "create", "--name", "keeper", "--image", "redis:3.0.5", "--mode", "global", *files)

    kept = swarm.wait_global("keeper")
    for host in swarm.hosts:
        each = kept[host.hostname].id
        assert read(host, each, "/run/secrets/password") == b"correct horse\n"
        assert read(host, each, "/run/secrets/renamed") == b"correct horse\n"
        assert read(host, each, "/etc/redis.conf") == b"maxmemory 1gb\n\x00\xff"
        stats = engine(host).docker(
            "exec", each, "stat", "-c", "%a %u:%g %F", "/run/secrets/password", "/etc/redis.conf"
        )
        assert stats.splitlines() == ["444 0:0 regular file"] * 2
        mounts = engine(host).docker("exec", each, "cat", "/proc/mounts").splitlines()
        kinds = {line.split()[1]: line.split()[2] for line in mounts}
        assert {kinds[path] for path in kinds if path.startswith("/run/secrets")} == {"tmpfs"}
    with pytest.raises(SwarmctlError, match="in use"):
        swarm.ctl("secret", "remove", "password")
    swarm.ctl("service", "remove", "keeper")
    swarm.wait_gone("keeper")
    swarm.ctl("secret", "remove", "password")
    swarm.ctl("config", "remove", "settings")


def read(host: Host, container_id: str, path: str) -> bytes:
    command = ["docker", "-H", engine(host).address, "exec", container_id, "cat", path]
    return subprocess.run(command, capture_output=True, check=True, timeout=20).stdout


def test_a_stock_engine_leaves_and_its_node_is_removed(swarm: Swarm) -> None:
    swarm.stock.docker("swarm", "leave")

    with pytest.raises(SwarmctlError, match="not down"):
        swarm.ctl("node", "rm", "docker3")
    swarm.wait_nodes("READY", "READY", "DOWN", seconds=30)
    swarm.ctl("node", "rm", "docker3")
    assert list(swarm.nodes()) == ["docker1", "docker2"]


def test_neither_side_has_complained(swarm: Swarm) -> None:
    for node in (swarm.manager, swarm.worker):
        assert "Traceback" not in node.log
        assert [line for line in node.log.splitlines() if "level=error" in line] == []
    assert swarm.stock_complaints() == []
