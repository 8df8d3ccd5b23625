"""What keeps a node from starting is said in one line, with exit code 1; 2 for wrong usage."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd
from swarmcore.testing.faults import refused_start, short_folder, small_disk, why_no_small_disk
from swarmcore.testing.ports import free_port

AT_ONCE = 4
DIGEST, SECRET = 2, 3
"""Parts of a join token between its dashes."""


@pytest.fixture(scope="module")
def running() -> Iterator[Swarmd]:
    """A manager with tokens, which holds its folder, port and socket. No test changes what others see of it."""
    with short_folder() as folder:
        address = f"127.0.0.1:{free_port()}"
        with swarmd(folder / "m1", "--listen-remote-api", address, "--executor", "process") as node:
            yield node


@pytest.fixture
def flags(folder: Path) -> tuple[str, ...]:
    """Of a node that could start."""
    return ("-d", str(folder / "state"), *could_start(folder / "swarm.sock"))


def could_start(control_socket: Path) -> tuple[str, ...]:
    return (
        *("--listen-control-api", str(control_socket)),
        *("--listen-remote-api", "127.0.0.1:0", "--executor", "process"),
    )


def address_of(node: Swarmd) -> str:
    return node.flags[node.flags.index("--listen-remote-api") + 1]


def token(node: Swarmd, role: str) -> str:
    (line,) = [
        line
        for line in node.swarmctl("cluster", "inspect", "default").splitlines()
        if "SWMTKN" in line and role in line.lower()
    ]
    return line.split()[-1]


def node_count(node: Swarmd) -> int:
    return len(node.swarmctl.table("node", "ls"))


def test_a_state_directory_that_is_a_file(folder: Path, flags: tuple[str, ...]) -> None:
    (folder / "state").touch()

    assert "can't write the state directory" in refused_start(*flags)


def test_a_state_directory_on_a_disk_that_takes_no_writes(folder: Path, flags: tuple[str, ...]) -> None:
    if reason := why_no_small_disk():
        pytest.skip(reason)
    with small_disk(folder / "state", 1, options="ro"):
        complaint = refused_start(*flags)

    assert "can't write the state directory" in complaint and "Read-only file system" in complaint


def test_a_state_directory_of_another_swarmd(running: Swarmd, flags: tuple[str, ...]) -> None:
    complaint = refused_start(*flags, "-d", str(running.state_dir))

    assert "another swarmd uses the state directory" in complaint


def test_a_port_of_another_process(running: Swarmd, flags: tuple[str, ...]) -> None:
    complaint = refused_start(*flags, "--listen-remote-api", address_of(running), seconds=5)

    assert "another process has the port: change --listen-remote-api" in complaint


def test_an_address_of_another_machine(flags: tuple[str, ...]) -> None:
    assert "change --listen-remote-api" in refused_start(*flags, "--listen-remote-api", "192.0.2.1:4242")


def test_ports_for_metrics_and_debugging_of_another_process(running: Swarmd, flags: tuple[str, ...]) -> None:
    taken = address_of(running)

    assert "change --listen-metrics" in refused_start(*flags, "--listen-metrics", taken)
    assert "change --listen-debug" in refused_start(*flags, "--listen-debug", taken)


def test_a_control_socket_of_another_process(running: Swarmd, flags: tuple[str, ...]) -> None:
    complaint = refused_start(*flags, "--listen-control-api", str(running.socket))

    assert "another process serves this socket: change --listen-control-api" in complaint
    assert node_count(running) == 1


def test_a_control_socket_where_a_file_is(folder: Path, flags: tuple[str, ...]) -> None:
    (folder / "swarm.sock").write_text("mine")

    assert "there is a file: change --listen-control-api" in refused_start(*flags)
    assert (folder / "swarm.sock").read_text() == "mine"


WRONG_FLAGS: Sequence[tuple[tuple[str, ...], int, str]] = (
    (("--nonsense",), 2, "No such option"),
    (("--election-tick", "many"), 2, "not a valid integer"),
    (("surplus",), 2, "unexpected extra argument"),
    (("--executor", "nosuch"), 1, "--executor: no plugin offers 'nosuch'"),
    (("--executor", "process,process,nosuch"), 1, "no plugin offers 'nosuch'"),
    (("--unlock-key", "SWMKEY-1-notakey"), 1, "--unlock-key is malformed"),
    (("--unlock-key", "SWMKEY-1-" + "A" * 100_000), 1, "--unlock-key is malformed"),
    (("--force-new-cluster",), 1, "--force-new-cluster needs the state of a manager"),
    (("--external-ca", "protocol=cfssl,url=https://ca.example"), 1, "--external-ca is not supported"),
    (("--listen-debug", "0.0.0.0:0"), 1, "give it a loopback one"),
    (("--hostname", "a\x1b[2Jb"), 1, "--hostname has blanks or control characters"),
    (("--join-token", "x"), 1, "--join-token needs --join-addr"),
    (("-d", "/proc/nowhere"), 1, "can't write the state directory"),
    (("-d", "/tmp/" + "x" * 5000), 1, "can't write the state directory"),
    (("--listen-remote-api", "x" * 300 + ":1"), 1, "--listen-remote-api"),
    (("--listen-control-api", "/proc/nowhere/sock"), 1, "change --listen-control-api"),
    (("--generic-node-resources", "gpu=\udcff"), 2, "is not UTF-8"),
    (("--hostname", os.fsdecode(b"\xff\xfe")), 2, "is not UTF-8"),
    (("--log-level", "loud"), 2, "--log-level"),
)
"""Flags, exit code, words of the complaint."""


def test_wrong_flags(folder: Path) -> None:
    def start(number: int) -> str:
        more, code, words = WRONG_FLAGS[number]
        state = folder / str(number)
        complaint = refused_start("-d", str(state), *could_start(state.with_suffix(".sock")), *more, code=code)
        assert not (state / "raft").exists()
        return "" if words in complaint else f"{more}: {complaint}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        faults = [fault for fault in pool.map(start, range(len(WRONG_FLAGS))) if fault]

    assert not faults


def test_tokens_that_are_wrong_old_or_of_another_cluster(running: Swarmd, folder: Path) -> None:
    good = token(running, "worker").split("-")

    def with_part(part: int, text: str) -> str:
        return "-".join((*good[:part], text, *good[part + 1 :]))

    def refused(case: tuple[str, str]) -> tuple[str, str]:
        name, text = case
        join = ("--join-addr", address_of(running), "--join-token", text)
        return name, refused_start("-d", str(folder / name), *could_start(folder / f"{name}.sock"), *join)

    running.swarmctl("cluster", "update", "default", "--rotate-join-token", "worker")
    tokens = {
        "wrong": with_part(SECRET, "0" * 25),
        "short": with_part(SECRET, good[SECRET][:-1]),
        "not one": "let me in",
        "digest": with_part(DIGEST, "1" + "0" * 49),
        "long": "SWMTKN-1-" + "x" * 100_000,
        "old": "-".join(good),
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        complaints = dict(pool.map(refused, tokens.items()))

    assert "A valid join token is necessary to join this cluster" in complaints["wrong"]
    assert "A valid join token is necessary to join this cluster" in complaints["old"]
    assert "the join token is incomplete" in complaints["short"]
    assert "does not start with 'SWMTKN-'" in complaints["not one"]
    assert "has another root CA than the join token names" in complaints["digest"]
    assert "the join token is too long" in complaints["long"]
    assert not [text for text in complaints.values() if good[SECRET] in text]
    assert node_count(running) == 1
