"""Workers whose manager is away for a while, and workers that the operator removed."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from swarmcore.cli.swarmd import REMOVED_EXIT
from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import marked, only_complaint, processes
from swarmcore.testing.machines import complaint
from swarmcore.testing.ports import free_port


@contextlib.contextmanager
def worker_of(manager: Swarmd, folder: Path, *flags: str) -> Iterator[Swarmd]:
    address = manager.flags[manager.flags.index("--listen-remote-api") + 1]
    join = ("--join-addr", address, "--hostname", folder.name, "--executor", "process")
    with swarmd(folder, *join, *flags) as node:
        yield node


def statuses(manager: Swarmd) -> dict[str, str]:
    return {row["Name"]: row["Status"] for row in manager.swarmctl.table("node", "ls")}


def wait_status(manager: Swarmd, name: str, status: str) -> None:
    def is_so() -> None:
        assert statuses(manager)[name] == status

    wait_until(is_so)


def node_id(manager: Swarmd, name: str) -> str:
    (row,) = [row for row in manager.swarmctl.table("node", "ls") if row["Name"] == name]
    return row["ID"]


def test_a_worker_comes_back_by_itself_when_its_manager_was_away(manager: Swarmd, folder: Path) -> None:
    with worker_of(manager, folder / "w1") as worker:
        manager.swarmctl(
            *("service", "create", "--name", "web", "--runtime", "process", "--replicas", "2"),
            *("--constraint", "node.hostname==w1", "--command", "sleep", "--args", marked(60)),
        )

        def both_run() -> None:
            assert len(processes(marked(60))) == 2
            (row,) = manager.swarmctl.table("service", "ls")
            assert row["Replicas"] == "2/2"

        wait_until(both_run)
        before = processes(marked(60))
        manager.kill()
        worker.wait_says("trying again")
        said = worker.log.count("level=warn")
        assert processes(marked(60)) == before

        manager.start()
        manager.wait_ready()
        wait_status(manager, "w1", "READY")
        wait_until(both_run)

        assert processes(marked(60)) == before
        assert worker.log.count("level=warn") <= said + 2
        assert "Traceback" not in worker.log
        manager.swarmctl("service", "remove", "web")
        wait_until(nothing_runs)


def nothing_runs() -> None:
    assert not processes(marked(60))


def test_a_worker_that_was_removed_stops_its_tasks_and_ends_with_a_code_of_its_own(
    manager: Swarmd, folder: Path
) -> None:
    with worker_of(manager, folder / "w1") as worker:
        removed = node_id(manager, "w1")
        sleep = ("--runtime", "process", "--command", "sleep", "--args", marked(60))
        manager.swarmctl("service", "create", "--name", "web", *sleep, "--constraint", "node.hostname==w1")

        def runs() -> None:
            assert processes(marked(60))

        wait_until(runs)
        manager.swarmctl("node", "remove", "--force", removed)
        # A worker of another cluster life is not disturbed by it.
        with worker_of(manager, folder / "w2"):
            wait_status(manager, "w2", "READY")
            assert worker.wait_end() == REMOVED_EXIT
            assert statuses(manager)["w2"] == "READY"

        assert not processes(marked(60))
        assert "w1" not in statuses(manager)
        said = complaint(worker)
        assert "this node was removed from the cluster; its tasks are stopped" in said and str(worker.state_dir) in said
        assert worker.log.count("removed") <= 3
        assert "Traceback" not in manager.log
        assert (worker.state_dir / "certificates" / "swarm-node.crt").exists()

        worker.start()
        assert worker.wait_end() == REMOVED_EXIT


def test_metrics_and_tasks_are_served_where_they_are_asked_for(folder: Path) -> None:
    metrics, debug = free_port(), free_port()
    flags = ("--listen-remote-api", "127.0.0.1:0", "--executor", "process", "--hostname", "m1")
    with swarmd(
        folder / "m1", *flags, "--listen-metrics", f"127.0.0.1:{metrics}", "--listen-debug", f"127.0.0.1:{debug}"
    ) as node:
        node.swarmctl("service", "create", "--name", "web", "--image", "redis:3.0.5", "--replicas", "0")
        text = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10).read().decode()
        stacks = urllib.request.urlopen(f"http://127.0.0.1:{debug}/debug/tasks", timeout=10).read().decode()
        (shown,) = json.loads(node.swarmctl("node", "ls", "-o", "json"))

    assert f'node_id="{shown["id"]}"' in text
    for line in (
        "swarm_node_manager 1",
        "swarm_manager_leader 1",
        "swarm_manager_services_total 1",
        'swarm_manager_nodes{state="ready"} 1',
        'swarm_manager_tasks_total{state="running"} 0',
    ):
        assert line in text.splitlines()
    assert "raft ticks" in stacks and "scheduler" in stacks


def test_a_locked_manager_starts_with_its_unlock_key_only(folder: Path) -> None:
    flags = ("--listen-remote-api", "127.0.0.1:0", "--executor", "process", "--hostname", "m1")
    with swarmd(folder / "m1", *flags, "--autolock") as node:
        (key,) = [word for word in node.swarmctl("cluster", "unlock-key", "default").split() if "SWMKEY" in word]
        node.kill()

        for wrong in ((), ("--unlock-key", "SWMKEY-1-" + "A" * 43)):
            node.flags = (*flags, *wrong)
            node.start()
            assert node.process is not None and node.process.wait(20) == 1
            last = node.log.splitlines()[-1]
            assert "node is locked, and needs a valid unlock key" in only_complaint(last)
            assert key not in node.log

        node.flags = (*flags, "--unlock-key", key)
        node.start()
        node.wait_ready()
        node.swarmctl("cluster", "update", "default", "--no-autolock")
        node.wait_says("not locked any more")
        node.kill()

        node.flags = flags
        node.start()
        node.wait_ready()
