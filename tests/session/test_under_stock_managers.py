"""Our node as a worker of Docker's own swarm mode."""

from __future__ import annotations

import time

import pytest

from swarmcore.testing.cluster import swarmd, wait_until
from swarmcore.testing.engines import hosts, missing_engine

pytestmark = pytest.mark.skipif(bool(missing_engine()), reason=missing_engine() or "")

PATIENCE_SECONDS = 12.0
"""A stock manager hangs up on the fourth ping in a row; agents send them to our managers every 2 s."""
QUIET = "60s"
"""Between heartbeats, whose answers let it forget pings."""


def test_a_stock_manager_keeps_the_session_of_our_agent() -> None:
    with hosts(2) as (first, second):
        assert first.engine is not None
        docker = first.engine.docker
        docker("swarm", "init", "--advertise-addr", first.address, "--listen-addr", f"{first.address}:2377")
        docker("swarm", "update", "--dispatcher-heartbeat", QUIET)
        token = docker("swarm", "join-token", "-q", "worker").strip()
        flags = ("--join-addr", f"{first.address}:2377", "--join-token", token, "--hostname", "w1")
        with swarmd(second.folder / "w1", *flags, "--executor", "process", host=second) as worker:
            worker.wait_says("registering again")
            until = time.monotonic() + PATIENCE_SECONDS

            def has_waited() -> None:
                assert time.monotonic() > until

            wait_until(has_waited)
            assert "lost the manager" not in worker.log, worker.log
            assert "w1" in docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}")
