"""`swarmctl` starts quickly because it imports little."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swarmcore.cli.swarmctl import COMMANDS
from swarmcore.testing.control_socket import Ctl, FakeManager, three_nodes

# asyncio is not among them: gRPC imports it, whatever of gRPC is used.
SLOW = (
    "rich",
    "cryptography",
    "docker",
    "pluggy",
    "grpc_tools.protoc",
    "importlib.metadata",
    "email",
    "json",
    "google.protobuf.json_format",
    "swarmcore.store",
    "swarmcore.plugin",
    "swarmcore.controlapi",
    "swarmcore.node",
    "swarmcore.cli.service",
    "swarmcore.api.watch_pb2",
)


def test_node_ls_imports_nothing_that_is_slow(manager: FakeManager) -> None:
    three_nodes(manager)
    script = (
        "import sys\nsys.argv[:] = ['swarmctl', 'node', 'ls']\n"
        "from swarmcore.cli.swarmctl import main\n"
        "try:\n    main()\n"
        f"finally:\n    print([name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script], env={"SWARM_SOCKET": manager.socket}, capture_output=True, text=True, check=True
    )

    assert "docker1" in ran.stdout
    assert ran.stderr == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_group_says_what_the_list_of_commands_says_of_it(name: str, bare_ctl: Ctl) -> None:
    shown = bare_ctl(name, "--help")

    assert shown.code == 0
    assert COMMANDS[name][1] in shown.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str, bare_ctl: Ctl) -> None:
    shown = bare_ctl("completion", shell)

    assert shown.code == 0
    assert "_SWARMCTL_COMPLETE" in shown.out and "swarmctl" in shown.out


def test_the_shell_is_told_commands_and_flags() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "from swarmcore.cli.swarmctl import main; main()"],
        env={
            "_SWARMCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": "swarmctl service create --update-p",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert answer.stdout == "plain,--update-parallelism\n"


def test_flags_for_all_commands_stand_before_or_after_the_command(manager: FakeManager, bare_ctl: Ctl) -> None:
    three_nodes(manager)

    assert bare_ctl("--socket", manager.socket, "node", "ls").code == 0
    assert bare_ctl("node", "ls", "-s", f"unix://{manager.socket}").code == 0
