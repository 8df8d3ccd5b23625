"""Managers that say nothing any more: frozen, or behind a network that swallows everything."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.engines import hosts, missing_namespaces
from swarmcore.testing.faults import marked
from swarmcore.testing.machines import Machines

SLEEP = ("--command", "sleep", "--args", marked(40))


def wait_noticed(worker: Swarmd) -> None:
    """By a ping that is not answered; otherwise a worker would learn it from its heartbeats, later."""

    def noticed() -> None:
        assert "lost the manager" in worker.log, worker.log[-500:]

    wait_until(noticed)
    assert "ping timeout" in next(line for line in worker.log.splitlines() if "lost the manager" in line)


def test_a_frozen_manager_is_noticed_soon_and_goes_on_when_it_wakes(folder: Path) -> None:
    machines = Machines(folder)
    try:
        manager = machines.add("m1")
        worker = machines.join("w1", "worker", by="m1")
        os.kill(manager.pid, signal.SIGSTOP)
        try:
            wait_noticed(worker)
        finally:
            os.kill(manager.pid, signal.SIGCONT)
        # Under the same session, which the manager still has: no task of the node is lost.
        manager.swarmctl("service", "create", "--runtime", "process", "--name", "again", *SLEEP)

        def runs() -> None:
            assert [row["Last State"].split()[0] for row in manager.swarmctl.table("task", "ls")] == ["RUNNING"]

        wait_until(runs)
        manager.swarmctl("service", "remove", "again")
    finally:
        machines.stop()


def test_a_manager_behind_a_network_that_swallows_everything_is_noticed_soon() -> None:
    if reason := missing_namespaces():
        pytest.skip(reason)
    with hosts(2, engines=False) as (first, second):
        flags = ("--hostname", "m1", "--executor", "process", "--accept", "auto")
        with swarmd(first.folder / "m1", *flags, host=first):
            join = ("--hostname", "w1", "--executor", "process", "--join-addr", f"{first.address}:4242")
            with swarmd(second.folder / "w1", *join, host=second) as worker:
                # Its packets go nowhere, and nobody is told.
                subprocess.run(first.command("ip", "route", "add", "blackhole", f"{second.address}/32"), check=True)
                wait_noticed(worker)
