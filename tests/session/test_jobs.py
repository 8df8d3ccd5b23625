"""Jobs from the command line to processes that end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def node(folder: Path) -> Iterator[Swarmd]:
    flags = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "process")
    with swarmd(folder / "m1", *flags) as node:
        yield node


def job(node: Swarmd, name: str, script: str, *flags: str) -> None:
    shell = ("--runtime", "process", "--command", "sh", "--args=-c", "--args", script)
    node.swarmctl("service", "create", "--name", name, *shell, *flags, "--wait")


def states(node: Swarmd) -> list[str]:
    return sorted(row["Last State"].split()[0] for row in node.swarmctl.table("task", "ls", "--all"))


def test_a_replicated_job_completes_as_often_as_asked_and_no_more_at_once(node: Swarmd, folder: Path) -> None:
    log = folder / "log"
    script = f"echo + >> {log}; sleep 0.3; echo - >> {log}"

    job(node, "import", script, "--mode", "replicated-job", "--completions", "5", "--max-concurrent", "2")

    assert states(node) == ["COMPLETE"] * 5
    at_once = most = 0
    for word in log.read_text().split():
        at_once += 1 if word == "+" else -1
        most = max(most, at_once)
    assert most == 2
    assert "5 completions, 2 at once" in node.swarmctl("service", "inspect", "import")

    node.swarmctl("service", "update", "import", "--force", "--wait")

    assert log.read_text().split().count("-") == 10


def test_a_task_of_a_job_that_fails_is_tried_again(node: Swarmd, folder: Path) -> None:
    mark = folder / "tried"

    job(node, "second", f"mkdir {mark} && exit 3; exit 0", "--mode", "replicated-job", "--restart-delay", "100ms")

    assert states(node) == ["COMPLETE", "FAILED"]


def test_a_global_job_runs_once_on_each_node(node: Swarmd, folder: Path) -> None:
    address = next(line.split()[-1] for line in node.log.splitlines() if "serving other nodes on" in line).strip('"')
    log = folder / "log"
    token = node.swarmctl("cluster", "inspect", "default", "-o", "json").partition('"worker": "')[2].partition('"')[0]
    join = ("--join-addr", address, "--join-token", token, "--hostname", "w1", "--executor", "process")
    with swarmd(folder / "w1", *join):

        def both() -> None:
            assert [row["Status"] for row in node.swarmctl.table("node", "ls")] == ["READY", "READY"]

        wait_until(both)
        job(node, "sweep", f"echo done >> {log}", "--mode", "global-job")

    assert log.read_text().split() == ["done", "done"]
