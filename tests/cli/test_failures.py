"""What a user reads when something is wrong: one line that says what to do, exit code 1; 2 for wrong usage."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Node
from swarmcore.cli import connection, lookup
from swarmcore.testing.control_socket import Ctl, FakeManager, a_node, three_nodes


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that takes connections and never says a word."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind("silent.sock")
        silent.listen()
        yield silent


def test_a_missing_socket_is_named_with_what_to_do(bare_ctl: Ctl) -> None:
    shown = bare_ctl("-s", "/nonexistent/swarm.sock", "node", "ls")

    assert shown.code == 1
    assert shown.err == (
        "Error: no manager listens at '/nonexistent/swarm.sock': start swarmd, or name its --listen-control-api "
        "with --socket or SWARM_SOCKET (workers have none)\n"
    )


def test_a_socket_that_nobody_serves_any_more_is_told_from_a_missing_one(
    listener: socket.socket, bare_ctl: Ctl
) -> None:
    listener.close()

    assert "nothing listens at 'silent.sock': swarmd has stopped" in bare_ctl("-s", "silent.sock", "node", "ls").err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_a_socket_of_another_user_says_whom_to_run_as(manager: FakeManager) -> None:
    os.chmod(manager.socket, 0o600)
    Path(manager.socket).parent.chmod(0o711)

    refused = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from swarmcore.cli.connection import socket_problem\n"
            "os.setuid(65534); print(socket_problem(sys.argv[1]))",
            manager.socket,
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "no permission to use the socket" in refused.stdout


def test_a_plain_file_is_no_socket(tmp_path: Path, bare_ctl: Ctl) -> None:
    path = tmp_path / "file"
    path.write_text("x")

    shown = bare_ctl("-s", str(path), "node", "ls")

    assert (shown.code, shown.err.count("\n")) == (1, 1)
    assert str(path) in shown.err


def test_a_manager_that_does_not_answer_is_not_waited_for_long(
    listener: socket.socket, bare_ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT_SECONDS", 0.3)

    shown = bare_ctl("-s", "silent.sock", "node", "ls")

    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith("Error: the manager at 'silent.sock' did not answer within 0.3 s")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nod", "ls"), "no such command 'nod': did you mean 'node'?"),
        (("node", "inspect"), "Missing argument 'NODE'"),
        (("node", "ls", "extra"), "unexpected extra argument"),
        (("service", "create", "--image", "x"), "--name is missing"),
        (("service", "create", "--name", "x"), "--image is missing"),
        (("service", "create", "--name", "x", "--image", "y", "--replicas", "-1"), "'-1' is not a whole number"),
        (("service", "create", "--name", "x", "--image", "y", "--replicas", "9" * 30), "is not a whole number"),
        (("service", "create", "--name", "x", "--image", "y", "--memory-limit", "lots"), "'lots' is not a size"),
        (("service", "create", "--name", "x", "--image", "y", "--env", "A=\x1b[2J"), "control characters"),
        (("service", "update", "x", "--rollback", "--force"), "--rollback goes alone"),
        (("cluster", "update"), "nothing to change"),
        (("cluster", "update", "--rotate-join-token", "boss"), "'boss' is not one of 'worker', 'manager'"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(args: tuple[str, ...], words: str, ctl: Ctl) -> None:
    shown = ctl(*args)

    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert shown.err.startswith("Error: ") and words in shown.err
    assert "--help`)" in shown.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("service", "inspect", "nosuch"), "service nosuch not found: `swarmctl service ls` lists what there is"),
        (("service", "inspect", ""), "the service is empty"),
        (("service", "inspect", "x" * 5000), "the service has 5000 characters"),
        (("service", "inspect", "a\x1b[31mb"), "control characters"),
        (("node", "drain", "nosuch"), "node nosuch not found"),
        (("task", "inspect", "nosuch"), "task nosuch not found"),
        (("secret", "inspect", "nosuch"), "secret nosuch not found"),
        (("plugins", "inspect", "nosuch"), "plugin 'nosuch' not found"),
        (("service", "create", "--name", "no dots.", "--image", "x"), "name"),
        (("service", "create", "--name", "x", "--image", "UPPER CASE"), "image"),
        (("service", "create", "--name", "x", "--image", "y", "--constraint", "nonsense"), "constraint"),
        (("service", "create", "--name", "x", "--image", "y", "--secret", "nosuch"), "secret nosuch not found"),
        (("service", "create", "--name", "x", "--image", "y", "--log-opt", "a=b"), "--log-opt needs --log-driver"),
        (("service", "create", "--mode", "global", "--name", "x", "--image", "y", "--replicas", "2"), "replicated"),
        (("cluster", "update", "--rotate-unlock-key"), "managers are not locked"),
        (("secret", "create", "x", "-f", "/nonexistent"), "can't read '/nonexistent': No such file"),
        (("--ca-cert", "/nonexistent", "node", "ls"), "can't read --ca-cert '/nonexistent'"),
    ],
)
def test_what_is_refused_changes_nothing_and_is_one_line(
    args: tuple[str, ...], words: str, manager: FakeManager, ctl: Ctl
) -> None:
    three_nodes(manager)

    shown = ctl(*args)

    assert (shown.code, shown.out, shown.err.count("\n")) == (1, "", 1)
    assert shown.err.startswith("Error: ") and words in shown.err
    assert manager.all("service") == []


def test_an_ambiguous_name_asks_for_the_id(manager: FakeManager, ctl: Ctl) -> None:
    manager.put(a_node("n1", "twin"), a_node("n2", "twin"))

    assert ctl("node", "drain", "twin").err == "Error: node twin is ambiguous (2 matches found): use the id\n"
    assert ctl("node", "drain", "n2").code == 0


def test_control_characters_of_a_node_never_reach_the_terminal(manager: FakeManager, ctl: Ctl) -> None:
    manager.put(a_node("n1", "evil\x1b[2J\nhost"))

    assert "evil\\x1b[2J host" in ctl("node", "ls").out


def test_a_change_by_someone_else_in_between_is_taken_up(
    manager: FakeManager, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.put(a_node("n1", "docker1"))
    disturbed: list[bool] = []

    def find_and_disturb(to: connection.Manager, typed: str) -> Node:
        found = lookup.find_node(to, typed)
        if not disturbed:
            disturbed.append(True)
            meanwhile = manager.one("node")
            meanwhile.spec.annotations.labels["zone"] = "a"
            manager.put(meanwhile)
        return found

    monkeypatch.setattr("swarmcore.cli.node.find_node", find_and_disturb)

    assert ctl("node", "pause", "docker1").code == 0
    assert dict(manager.one("node").spec.annotations.labels) == {"zone": "a"}
