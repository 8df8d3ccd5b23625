"""`swarmctl` starts quickly because it imports little."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from swarmcore.cli import swarmctl
from swarmcore.cli.swarmctl import COMMANDS
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.control_socket import Ctl, FakeManager, a_node, three_nodes

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


def test_a_command_that_only_a_plugin_has_is_found_there(bare_ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(group: click.Group) -> None:
        @group.command("gpus")
        def gpus() -> None:
            click.echo("two of them")

    def fail(group: click.Group) -> None:
        raise KeyError("nope")

    plugins = PluginSet(commands={"gpu": add, "bad": fail})
    monkeypatch.setattr("swarmcore.plugin.loader.load", lambda **_: plugins)
    monkeypatch.setattr(swarmctl.command, "commands", dict(swarmctl.command.commands))
    monkeypatch.setattr(swarmctl.command, "more", swarmctl.add_plugin_commands)

    shown = bare_ctl("gpus")

    assert (shown.code, shown.out, shown.err) == (0, "two of them\n", "Warning: plugin 'bad': KeyError: 'nope'\n")
    assert "no such command 'nosuch'" in bare_ctl("nosuch").err


def test_a_letter_that_the_terminal_lacks_is_replaced(manager: FakeManager) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import sys; from swarmcore.cli.swarmctl import main; main()", "plugins"],
        env={"SWARM_SOCKET": manager.socket, "PYTHONIOENCODING": "iso8859-5"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "31 ?s" in shown.stdout


def test_a_value_that_a_newer_manager_has_is_shown_as_its_number(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    node = a_node("new", "docker9")
    node.status.state = 99  # type: ignore[assignment]
    manager.put(node)

    assert "docker9  ACCEPTED    99      ACTIVE" in ctl("node", "ls").out
    assert "State            : 99" in ctl("node", "inspect", "docker9").out
    assert '"state": 99' in ctl("node", "inspect", "docker9", "-o", "json").out


def test_help_has_flags_by_section_and_examples_as_they_are_typed(bare_ctl: Ctl) -> None:
    shown = bare_ctl("service", "update", "--help").out

    sections = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections == [
        "Service:",
        "What runs:",
        "Files and ports:",
        "Health:",
        "Names:",
        "Privileges:",
        "Resources:",
        "Restarts:",
        "Updates:",
        "Rollbacks:",
        "Logs:",
        "Options:",
    ]
    assert "\n    swarmctl service update redis --replicas 6\n" in shown
    assert "\n  SERVICE\n" not in shown
