"""What goes wrong with the disk under a running swarm: full, damaged, torn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import (
    fill,
    marked,
    only_complaint,
    processes,
    refused_start,
    short_folder,
    small_disk,
    why_no_small_disk,
)

DISK_MEGABYTES = 40
"""A manager keeps 32 MiB free: below that it takes no writes."""
FLAGS = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "process")
SLEEP = ("--runtime", "process", "--command", "sleep", "--args")


@pytest.fixture
def on_small_disk(folder: Path) -> Iterator[Swarmd]:
    """A manager whose state has a small disk of its own."""
    if reason := why_no_small_disk():
        pytest.skip(reason)
    (folder / "m1").mkdir()
    with small_disk(folder / "m1" / "state", DISK_MEGABYTES), swarmd(folder / "m1", *FLAGS) as node:
        yield node


def create(node: Swarmd, name: str, seconds: str) -> str | None:
    """The complaint, or None where the service was created."""
    done = node.swarmctl.run("service", "create", "--name", name, *SLEEP, seconds)
    return only_complaint(done.stderr.decode()) if done.returncode else None


def running(node: Swarmd) -> dict[str, str]:
    """Replicas by service."""
    return {row["Name"]: row["Replicas"] for row in node.swarmctl.table("service", "ls")}


def wait_running(node: Swarmd, expected: dict[str, str]) -> None:
    def is_so() -> None:
        assert running(node) == expected

    wait_until(is_so)


def test_a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself(on_small_disk: Swarmd) -> None:
    node = on_small_disk
    assert create(node, "before", marked(1)) is None
    wait_running(node, {"before": "1/1"})
    (pid,) = processes(marked(1))

    fill(node.state_dir / "somebody-else")
    acknowledged = {"before"}
    complaints = []
    for number in range(5):
        if complaint := create(node, f"full{number}", marked(2)):
            complaints.append(complaint)
        else:
            acknowledged.add(f"full{number}")
    assert len(complaints) >= 4
    assert {complaint.partition("under")[0] for complaint in complaints} == {"Error: the disk is full: make space "}
    assert running(node).keys() == acknowledged

    # A restart on the full disk: it reads, it still has its task, and still takes nothing.
    node.kill()
    node.start()
    node.wait_ready()
    assert running(node).keys() == acknowledged
    assert "the disk is full" in str(create(node, "again", marked(2)))
    assert "damaged" not in node.log and "Traceback" not in node.log
    assert list(processes(marked(1))) == [pid]

    (node.state_dir / "somebody-else").unlink()

    def takes_writes() -> None:
        assert create(node, "after", marked(3)) is None

    wait_until(takes_writes, seconds=10)
    wait_running(node, dict.fromkeys([*acknowledged, "after"], "1/1"))
    assert list(processes(marked(1))) == [pid]
    for name in running(node):
        node.swarmctl("service", "remove", name)
    wait_until(nothing_runs)
    assert node.log.count("the disk is full") < 20


def nothing_runs() -> None:
    assert not any(processes(marked(number)) for number in (1, 2, 3))


def segment(node: Swarmd) -> Path:
    (file,) = (node.state_dir / "raft").glob("log-*")
    return file


@pytest.fixture(scope="module")
def killed() -> Iterator[Swarmd]:
    """A manager that has written some services and was killed."""
    with short_folder() as folder, swarmd(folder / "m1", *FLAGS) as node:
        for name in ("a", "b", "c"):
            node.swarmctl("service", "create", "--name", name, *SLEEP, marked(4), "--replicas", "0")
        node.kill()
        yield node


@pytest.fixture
def stopped(killed: Swarmd, folder: Path) -> Iterator[Swarmd]:
    """The same in a folder of its own."""
    shutil.copytree(killed.state_dir, folder / "m1" / "state")
    node = Swarmd(folder / "m1", FLAGS)
    yield node
    if node.is_running:
        node.stop()


def test_damage_in_the_middle_of_the_log_stops_the_start(stopped: Swarmd) -> None:
    file = segment(stopped)
    content = bytearray(file.read_bytes())
    middle = len(content.rstrip(b"\0")) // 2
    content[middle] ^= 0x10
    file.write_bytes(content)

    flags = ("-d", str(stopped.state_dir), "--listen-control-api", str(stopped.socket), *stopped.flags)
    complaint = refused_start(*flags)

    assert str(file) in complaint and "damaged at byte" in complaint and "restore" in complaint
    assert file.read_bytes() == content


def test_a_torn_tail_is_cut(stopped: Swarmd) -> None:
    file = segment(stopped)
    # As after a loss of power: the file ends inside its last write.
    file.write_bytes(file.read_bytes()[:-3])

    stopped.start()
    stopped.wait_ready()

    assert running(stopped).keys() >= {"a", "b"}
    assert create(stopped, "d", marked(4)) is None
    stopped.swarmctl("service", "remove", "d")


@pytest.mark.parametrize("name", ["keys.json", "member.json"])
def test_damaged_files_beside_the_log_stop_the_start(stopped: Swarmd, name: str) -> None:
    file = stopped.state_dir / "raft" / name
    file.write_bytes(file.read_bytes()[:20])

    flags = ("-d", str(stopped.state_dir), "--listen-control-api", str(stopped.socket), *stopped.flags)

    assert str(file) in refused_start(*flags)


@pytest.mark.parametrize("name", ["swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key"])
def test_a_damaged_identity_stops_the_start(stopped: Swarmd, name: str) -> None:
    file = stopped.state_dir / "certificates" / name
    file.write_bytes(b"no certificate\n")

    flags = ("-d", str(stopped.state_dir), "--listen-control-api", str(stopped.socket), *stopped.flags)

    assert "certificates" in refused_start(*flags)


def test_a_log_that_is_gone_is_not_begun_anew(stopped: Swarmd) -> None:
    segment(stopped).rename(stopped.folder / "elsewhere")

    flags = ("-d", str(stopped.state_dir), "--listen-control-api", str(stopped.socket), *stopped.flags)

    assert "raft" in refused_start(*flags)
