"""Who gets in, and how an operator decides: real processes on loopback, which run processes."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import SwarmctlError, Swarmd, swarmd, wait_until
from swarmcore.testing.ports import free_port

WORKER = ("--executor", "process")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, since that of a unix socket must fit in 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="swt-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def manager(folder: Path) -> Iterator[Swarmd]:
    """One without --accept: tokens, or the operator's own decision."""
    address = f"127.0.0.1:{free_port()}"
    with swarmd(folder / "m", *WORKER, "--hostname", "docker1", "--listen-remote-api", address) as node:
        yield node


def join_flags(manager: Swarmd, hostname: str, *flags: str) -> tuple[str, ...]:
    address = manager.flags[manager.flags.index("--listen-remote-api") + 1]
    return (*WORKER, "--hostname", hostname, "--join-addr", address, *flags)


def token(manager: Swarmd, role: str) -> str:
    """As an operator reads it."""
    found = re.search(rf"{role}\s*: (SWMTKN-1-\S+)", manager.swarmctl("cluster", "inspect", "default"))
    assert found is not None
    return found[1]


def memberships(manager: Swarmd) -> dict[str, list[str]]:
    """Membership and status of all nodes by id."""
    return {row["ID"]: [row["Membership"], row["Status"]] for row in manager.swarmctl.table("node", "ls")}


def waiting(manager: Swarmd) -> str:
    """The id of the one node that waits."""
    (found,) = [id for id, (membership, _) in memberships(manager).items() if membership == "PENDING"]
    return found


def wait_member(manager: Swarmd, name: str, *shown: str) -> str:
    """Return the node's id once it is shown so."""

    def listed() -> str:
        rows = [row for row in manager.swarmctl.table("node", "ls") if row["Name"] == name]
        assert [(row["Membership"], row["Status"]) for row in rows] == [shown]
        return rows[0]["ID"]

    return wait_until(listed)


def test_a_node_without_a_token_waits_until_the_operator_accepts_it(folder: Path, manager: Swarmd) -> None:
    with swarmd(folder / "w", *join_flags(manager, "docker2"), ready=False) as worker:
        worker.wait_says("swarmctl node accept")
        node = waiting(manager)
        assert node in worker.log
        assert memberships(manager)[node] == ["PENDING", "UNKNOWN"]
        assert "node is ready" not in worker.log

        manager.swarmctl("node", "accept", node)

        worker.wait_ready()
        assert wait_member(manager, "docker2", "ACCEPTED", "READY") == node


def test_a_node_that_is_rejected_ends_with_one_line(folder: Path, manager: Swarmd) -> None:
    with swarmd(folder / "w", *join_flags(manager, "docker2"), ready=False) as worker:
        worker.wait_says("swarmctl node accept")

        manager.swarmctl("node", "reject", waiting(manager))

        assert worker.wait_end() == 1
        assert worker.log.splitlines()[-1].startswith("Error: ")
        assert "Traceback" not in worker.log


def test_a_node_that_was_killed_while_it_waited_waits_on_as_the_same_node(folder: Path, manager: Swarmd) -> None:
    with swarmd(folder / "w", *join_flags(manager, "docker2"), ready=False) as worker:
        worker.wait_says("swarmctl node accept")
        node = waiting(manager)
        worker.kill()

        worker.start()
        worker.wait_says("swarmctl node accept", times=2)

        assert waiting(manager) == node


def test_a_node_with_a_token_is_in_at_once_and_runs_tasks(folder: Path, manager: Swarmd) -> None:
    flags = join_flags(manager, "docker2", "--join-token", token(manager, "Worker"))
    with swarmd(folder / "w", *flags) as worker:
        wait_member(manager, "docker2", "ACCEPTED", "READY")
        command = ("--runtime", "process", "--command", "sleep", "--args", "1000")
        manager.swarmctl("service", "create", "--name", "web", *command, "--mode", "global", "--wait")

        rows = manager.swarmctl.table("service", "inspect", "web")

        assert sorted(row["Node"] for row in rows) == ["docker1", "docker2"]
        manager.swarmctl("service", "remove", "web")
        assert "PENDING" not in worker.log


@pytest.mark.parametrize(
    "wrong",
    ["SWMTKN-1-" + "0" * 50 + "-" + "1" * 25, "nonsense"],
    ids=["another cluster's", "not a token"],
)
def test_a_wrong_token_is_refused_in_one_line(folder: Path, manager: Swarmd, wrong: str) -> None:
    with swarmd(folder / "w", *join_flags(manager, "docker2", "--join-token", wrong), ready=False) as worker:
        assert worker.wait_end() == 1

    assert worker.log.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in worker.log
    assert len(memberships(manager)) == 1


def test_a_token_that_was_rotated_lets_nobody_in_and_the_new_one_does(folder: Path, manager: Swarmd) -> None:
    old = token(manager, "Worker")
    manager.swarmctl("cluster", "update", "default", "--rotate-join-token", "worker")

    with swarmd(folder / "old", *join_flags(manager, "docker2", "--join-token", old), ready=False) as worker:
        assert worker.wait_end() == 1
    with swarmd(folder / "new", *join_flags(manager, "docker2", "--join-token", token(manager, "Worker"))):
        wait_member(manager, "docker2", "ACCEPTED", "READY")

    assert worker.log.splitlines()[-1].startswith("Error: ")


def test_a_removed_node_ends_and_says_why(folder: Path, manager: Swarmd) -> None:
    flags = join_flags(manager, "docker2", "--join-token", token(manager, "Worker"))
    with swarmd(folder / "w", *flags) as worker:
        node = wait_member(manager, "docker2", "ACCEPTED", "READY")
        with pytest.raises(SwarmctlError, match="not down"):
            manager.swarmctl("node", "remove", node)

        manager.swarmctl("node", "remove", "--force", node)

        assert worker.wait_end() == 3
    assert "was removed from the cluster" in worker.log.splitlines()[-1]
