"""A node that is killed at any moment, and one that is told to stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from random import Random

import grpc
import pytest

from swarmcore.api.control_pb2 import CreateServiceRequest, ListServicesRequest, ListTasksRequest
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.specs_pb2 import ServiceSpec
from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import marked, processes

KILLS = 5
STOP_SECONDS = 5.0


def spec(name: str) -> ServiceSpec:
    service = ServiceSpec()
    service.annotations.name = name
    service.task.container.image = "redis:3.0.5"
    service.replicated.replicas = 2
    return service


class Creator(threading.Thread):
    """Creates services as fast as it may, until its manager is gone; remembers what was acknowledged."""

    def __init__(self, node: Swarmd, prefix: str) -> None:
        super().__init__()
        self._address = f"unix:{node.socket}"
        self._prefix = prefix
        self.acknowledged: dict[str, str] = {}
        self.has_begun = threading.Event()

    def run(self) -> None:
        with grpc.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            create = ControlStub(channel).CreateService
            for number in range(100_000):
                name = f"{self._prefix}-{number}"
                try:
                    answer = create(CreateServiceRequest(spec=spec(name)), timeout=10, wait_for_ready=number == 0)
                except grpc.RpcError:
                    return
                self.acknowledged[name] = answer.service.id
                self.has_begun.set()


def services(node: Swarmd) -> dict[str, str]:
    with grpc.insecure_channel(f"unix:{node.socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        listed = ControlStub(channel).ListServices(ListServicesRequest(), timeout=10, wait_for_ready=True).services
    return {service.spec.annotations.name: service.id for service in listed}


def tasks_of_each(node: Swarmd) -> dict[str, int]:
    """Tasks that are wanted, by service."""
    with grpc.insecure_channel(f"unix:{node.socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        listed = ControlStub(channel).ListTasks(ListTasksRequest(), timeout=10, wait_for_ready=True).tasks
    counts: dict[str, int] = {}
    for task in listed:
        counts[task.service_id] = counts.get(task.service_id, 0) + 1
    return counts


def test_nothing_that_was_acknowledged_is_lost_whenever_the_manager_is_killed(folder: Path) -> None:
    chance = Random(1)
    flags = ("--listen-remote-api", "127.0.0.1:0", "--executor", "process")
    acknowledged: dict[str, str] = {}
    with swarmd(folder / "m1", *flags) as node:
        for round_number in range(KILLS):
            creator = Creator(node, f"s{round_number}")
            creator.start()
            assert creator.has_begun.wait(20)
            # The moment of the kill is the point here: somewhere in a stream of writes.
            time.sleep(chance.random() * 0.25)
            node.kill()
            creator.join(20)
            acknowledged |= creator.acknowledged

            node.start()
            node.wait_ready()
            kept = services(node)
            assert {name: kept.get(name) for name in acknowledged} == acknowledged
            # At most the one that was under way may have been written without an answer.
            assert len(kept.keys() - acknowledged.keys()) <= round_number + 1

        def has_two_tasks_each() -> None:
            counts = tasks_of_each(node)
            assert [counts.get(id) for id in acknowledged.values()] == [2] * len(acknowledged)

        wait_until(has_two_tasks_each)
        assert "Traceback" not in node.log and "damaged" not in node.log
        assert node.stop() == 0


def task_ids(node: Swarmd) -> set[str]:
    return {row["ID"] for row in node.swarmctl.table("task", "ls") if row["Last State"].startswith("RUNNING")}


def create(node: Swarmd, replicas: int, word: str) -> None:
    node.swarmctl(
        *("service", "create", "--name", "web", "--runtime", "process", "--replicas", str(replicas)),
        *("--restart-delay", "100ms"),
        *("--command", "sleep", "--args", word),
    )
    wait_count(node, replicas, word)


def wait_count(node: Swarmd, count: int, word: str) -> None:
    def is_so() -> None:
        assert len(processes(word)) == count
        assert len(task_ids(node)) == count

    wait_until(is_so)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_tasks_go_on_while_their_swarmd_is_away(manager: Swarmd, how: signal.Signals) -> None:
    word = marked(10 + int(how))
    create(manager, 3, word)
    before, ids = processes(word), task_ids(manager)
    node_ids = manager.swarmctl("node", "ls", "-q").split()

    if how == signal.SIGKILL:
        manager.kill()
    else:
        assert manager.stop() == 0
    assert processes(word) == before
    manager.start()
    manager.wait_ready()

    wait_count(manager, 3, word)
    assert processes(word) == before
    assert task_ids(manager) == ids
    assert manager.swarmctl("node", "ls", "-q").split() == node_ids
    # They are still looked after: one that ends is replaced.
    victim = min(before)
    os.kill(victim, signal.SIGKILL)

    def is_replaced() -> None:
        now = processes(word)
        assert victim not in now and len(now) == 3

    wait_until(is_replaced)
    manager.swarmctl("service", "remove", "web")
    wait_count(manager, 0, word)


def test_a_task_that_ended_while_its_swarmd_was_away_is_replaced(manager: Swarmd) -> None:
    create(manager, 2, marked(30))
    before = processes(marked(30))
    manager.kill()
    os.kill(min(before), signal.SIGKILL)

    manager.start()
    manager.wait_ready()

    def is_replaced() -> None:
        now = processes(marked(30))
        assert len(now) == 2 and len(now.keys() & before.keys()) == 1

    wait_until(is_replaced)
    failed = [row for row in manager.swarmctl.table("task", "ls", "--all") if row["Last State"].startswith("FAILED")]
    assert len(failed) == 1
    manager.swarmctl("service", "remove", "web")
    wait_count(manager, 0, marked(30))


def test_sigterm_ends_a_busy_manager_soon_and_in_good_order(manager: Swarmd) -> None:
    creator = Creator(manager, "busy")
    creator.start()
    assert creator.has_begun.wait(20)

    started = time.monotonic()
    assert manager.stop() == 0
    assert time.monotonic() - started < STOP_SECONDS
    creator.join(20)

    assert manager.log.rstrip().endswith('msg="stopped"')
    assert "Traceback" not in manager.log and "level=error" not in manager.log
    assert not manager.socket.exists()


def test_a_second_sigterm_ends_it_at_once(manager: Swarmd) -> None:
    assert manager.process is not None
    # Stopped by the kernel, it gets both signals in the same moment.
    os.kill(manager.pid, signal.SIGSTOP)
    os.kill(manager.pid, signal.SIGTERM)
    os.kill(manager.pid, signal.SIGINT)
    os.kill(manager.pid, signal.SIGCONT)

    assert manager.process.wait(STOP_SECONDS) == 1
    assert "again: ending at once" in manager.log
    manager.start()
    manager.wait_says("node is ready", times=2)


def test_a_worker_that_is_stopped_ends_soon(manager: Swarmd, folder: Path) -> None:
    address = manager.flags[manager.flags.index("--listen-remote-api") + 1]
    with swarmd(folder / "w1", "--join-addr", address, "--hostname", "w1", "--executor", "process") as worker:
        started = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - started < STOP_SECONDS


def test_the_manager_ends_soon_with_workers_connected(manager: Swarmd, folder: Path) -> None:
    address = manager.flags[manager.flags.index("--listen-remote-api") + 1]
    with swarmd(folder / "w1", "--join-addr", address, "--hostname", "w1", "--executor", "process"):
        started = time.monotonic()
        assert manager.stop() == 0
        assert time.monotonic() - started < STOP_SECONDS


def test_identity_survives_a_kill_in_the_first_seconds(folder: Path) -> None:
    chance = Random(2)
    flags = ("--listen-remote-api", "127.0.0.1:0", "--executor", "process")
    with swarmd(folder / "m1", *flags, ready=False) as node:
        for _ in range(4):
            time.sleep(0.3 + chance.random() * 0.5)
            node.kill()
            assert "Error" not in node.log and "Traceback" not in node.log, node.log
            node.start()
        node.wait_ready()
        (shown,) = json.loads(node.swarmctl("node", "ls", "-o", "json"))
        assert node.log.count("started cluster") <= 1
        assert shown["id"] in node.log
