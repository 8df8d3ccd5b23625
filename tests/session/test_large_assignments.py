"""A node whose tasks are more than 4 MiB, gRPC's default for a message: what it has started is in one message."""

from __future__ import annotations

import grpc
import pytest

from swarmcore.api.control_pb2 import ListTasksRequest
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.engines import DockerEngine, hosts, missing_engine
from swarmcore.testing.three_hosts import worker_token

pytestmark = pytest.mark.skipif(bool(missing_engine()), reason=missing_engine() or "")

IMAGE = "redis:3.0.5"
TASKS = 12
LABELS = tuple(word for number in range(4) for word in ("--label", f"l{number}={'x' * 100_000}"))
"""Each task has a copy of its service's labels: 12 tasks are 4.8 MB."""


def running(engine: DockerEngine, count: int) -> set[str]:
    def all_run() -> set[str]:
        found = {each["ID"] for each in engine.containers() if each["State"] == "running"}
        assert len(found) == count, found
        return found

    return wait_until(all_run, seconds=60)


def size_of_tasks(manager: Swarmd) -> int:
    options = [("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"unix:{manager.socket}", options=options) as channel:
        return sum(task.ByteSize() for task in ControlStub(channel).ListTasks(ListTasksRequest()).tasks)


def wait_ready(manager: Swarmd) -> None:
    def ready() -> None:
        assert [row["Status"] for row in manager.swarmctl.table("node", "ls")] == ["READY", "READY"]

    wait_until(ready, seconds=60)


def test_a_stock_engine_takes_them_all_and_ends_none_of_them() -> None:
    with hosts(2, images=(IMAGE,)) as (first, second):
        flags = ("--hostname", "m1", "--executor", "process")
        with swarmd(first.folder / "m1", *flags, host=first) as manager:
            engine = second.engine
            assert engine is not None
            own = ("--advertise-addr", second.address, "--listen-addr", f"{second.address}:2377")
            engine.docker("swarm", "join", "--token", worker_token(manager), *own, f"{first.address}:4242")
            wait_ready(manager)
            command = ("--command", "sleep", "--args", "1000")
            manager.swarmctl(
                "service", "create", "--name", "large", "--image", IMAGE, "--replicas", str(TASKS), *command, *LABELS
            )
            before = running(engine, TASKS)
            assert size_of_tasks(manager) > 4 * 1024 * 1024

            manager.kill()
            manager.start()
            manager.wait_ready()
            wait_ready(manager)
            # It comes after what was there, on the same stream.
            manager.swarmctl("service", "create", "--name", "last", "--image", IMAGE, *command)

            assert running(engine, TASKS + 1) >= before
            assert "larger than max" not in engine.log
