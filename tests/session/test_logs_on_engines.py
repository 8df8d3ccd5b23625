"""Logs and commands beside containers on three hosts, one of which is a stock Docker Engine that joined by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import require
from swarmcore.testing import engines
from swarmcore.testing.cluster import program, wait_until
from swarmcore.testing.three_hosts import Swarm, three_hosts

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("logs on engines")]

IMAGE = "redis:3.0.5"
SCRIPT = "echo started >&2; n=0; while true; do echo line $n; n=$((n+1)); sleep 0.2; done"
HOSTS = {"docker1", "docker2", "docker3"}


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    require(engines.missing_engine() or engines.missing_namespaces())
    with three_hosts(IMAGE) as made:
        command = ("--command", "sh", "--args", "-c", "--args", SCRIPT)
        made.ctl("service", "create", "--name", "talks", "--image", IMAGE, "--replicas", "3", *command)
        made.wait_running("talks", IMAGE, 3, hosts=HOSTS)
        yield made


def task_on(swarm: Swarm, host: str) -> str:
    return next(row["ID"] for row in swarm.ctl.table("task", "ls") if row["Node"] == host)


def test_logs_of_stock_engines_come_like_all_others(swarm: Swarm) -> None:
    def all_three() -> tuple[str, str]:
        done = swarm.ctl.run("service", "logs", "talks", "--tail", "3", "--timestamps")
        assert done.returncode == 0, done.stderr
        out, err = done.stdout.decode(), done.stderr.decode()
        assert all(out.count(f"@{host} ") >= 2 for host in HOSTS), out + err
        return out, err

    out, err = wait_until(all_three)

    assert "started" not in out and "Warning" not in err
    whole = swarm.ctl.run("service", "logs", "talks")
    assert all(f"@{host} | started\n" in whole.stderr.decode() for host in HOSTS)
    assert whole.stdout.decode().count("| line 0\n") == 3


def test_logs_of_stock_engines_are_followed(swarm: Swarm, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [program("swarmctl"), "task", "logs", "-f", "--raw", task_on(swarm, "docker3")],
            env={**os.environ, "SWARM_SOCKET": str(swarm.ctl.socket)},
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
    try:
        first = wait_until(lambda: _lines(out, 3))
        more = wait_until(lambda: _lines(out, len(first) + 10))
    finally:
        process.kill()
        process.wait()

    assert more == [f"line {number}" for number in range(len(more))]


def test_commands_run_beside_containers_but_not_on_a_stock_engine(swarm: Swarm) -> None:
    ours = swarm.ctl.run("task", "exec", task_on(swarm, "docker2"), "--", "sh", "-c", "hostname; exit 6")
    piped = swarm.ctl.run("task", "exec", task_on(swarm, "docker1"), "-i", "--", "cat", stdin=b"a\0b" * 100_000)
    stock = swarm.ctl.run("task", "exec", task_on(swarm, "docker3"), "--", "hostname")

    assert (ours.returncode, len(ours.stdout.strip()), ours.stderr) == (6, 12, b"")
    assert (piped.returncode, piped.stdout == b"a\0b" * 100_000) == (0, True)
    assert (stock.returncode, stock.stdout) == (125, b"")
    assert stock.stderr == b"Error: not supported by this node: docker3 is a stock Docker Engine\n"


def test_stats_tell_of_containers_and_name_the_engine_that_does_not(swarm: Swarm) -> None:
    done = swarm.ctl.run("task", "stats", "--no-stream")

    assert done.returncode == 0
    table = done.stdout.decode()
    assert "docker1" in table and "docker2" in table and "docker3" not in table
    assert table.count(" / ") >= 2 * 3
    assert done.stderr == b"Warning: not supported by this node: docker3 is a stock Docker Engine\n"


def _lines(out: Path, least: int) -> list[str]:
    lines = [line for line in out.read_text().splitlines() if line.startswith("line ")]
    assert len(lines) >= least
    return lines
