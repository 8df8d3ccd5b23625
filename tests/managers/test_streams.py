"""Streams that a manager holds open end when it is none any more, so that whoever listens goes to another one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import grpc
import pytest

from swarmcore.api.watch_pb2 import WatchActionKind, WatchRequest
from swarmcore.api.watch_pb2_grpc import WatchStub
from swarmcore.testing.cluster import SwarmctlError, Swarmd, wait_until
from swarmcore.testing.faults import short_folder
from swarmcore.testing.machines import Machines

END_SECONDS = 20.0
CREATE_UPDATE_REMOVE = WatchActionKind.ValueType(7)
EVERYTHING_OF_NODES = WatchRequest(entries=[WatchRequest.WatchEntry(kind="node", action=CREATE_UPDATE_REMOVE)])


class Watching:
    """A Watch on a manager's control socket, read by a thread until it ends."""

    def __init__(self, node: Swarmd) -> None:
        self._channel = grpc.insecure_channel(f"unix:{node.socket}", options=[("grpc.default_authority", "localhost")])
        self._ends: queue.Queue[str] = queue.Queue()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._has_begun.wait(10), "no stream"
        if not self._ends.empty():
            raise AssertionError(self.end())

    def _read(self) -> None:
        try:
            for _ in WatchStub(self._channel).Watch(EVERYTHING_OF_NODES):
                self._has_begun.set()
        except grpc.RpcError as error:
            self._ends.put(f"{error.code().name}: {error.details()}")
        else:
            self._ends.put("")
        finally:
            self._has_begun.set()

    def end(self) -> str:
        """The status it ended with, waiting for it."""
        try:
            return self._ends.get(timeout=END_SECONDS)
        except queue.Empty:
            raise AssertionError("the stream is still open") from None
        finally:
            self.close()

    def close(self) -> None:
        self._channel.close()
        self._thread.join(10)


@pytest.fixture
def machines() -> Iterator[Machines]:
    with short_folder() as folder:
        machines = Machines(folder)
        try:
            machines.add("m1")
            for name in ("m2", "m3"):
                machines.join(name, "manager", by="m1")
            machines.join("w1", "worker", by="m1")
            machines.wait_managers(3, by="m1")
            yield machines
        finally:
            machines.stop()


def leader(machines: Machines, by: str) -> str:
    return next(name for name, status in machines.managers(by).items() if "*" in status)


def test_streams_of_a_demoted_manager_end_and_its_workers_sessions_move(machines: Machines) -> None:
    follower, led = Watching(machines.nodes["m3"]), Watching(machines.nodes["m1"])
    assert leader(machines, "m2") == "m1"

    machines.nodes["m2"].swarmctl("node", "demote", "m3")
    follower_end = follower.end()
    machines.nodes["m2"].swarmctl("node", "demote", "m1")
    leader_end = led.end()

    assert {follower_end.partition(":")[0], leader_end.partition(":")[0]} <= {"UNAVAILABLE", "CANCELLED", "ABORTED"}

    def settled() -> None:
        try:
            rows = {row["Name"]: row for row in machines.nodes["m2"].swarmctl.table("node", "ls")}
        except SwarmctlError as error:
            raise AssertionError(str(error)) from None
        assert [name for name, row in rows.items() if row["Manager status"]] == ["m2"], rows
        assert {row["Status"] for row in rows.values()} == {"READY"}, rows

    wait_until(settled, seconds=30)


def test_a_watch_ends_where_the_majority_of_managers_is_lost_and_begins_again_with_it(machines: Machines) -> None:
    left = Watching(machines.nodes["m1"])
    machines.kill("m2", "m3")

    assert left.end().startswith("UNAVAILABLE: this manager has no leader")

    machines.restart("m2")

    def watched() -> None:
        again = Watching(machines.nodes["m1"])
        again.close()

    wait_until(watched)
