"""What Tab offers: commands, flags, and the names of what there is."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from swarmcore.api.objects_pb2 import Service
from swarmcore.cli import names_of, swarmctl
from swarmcore.testing.control_socket import FakeManager, three_nodes


def offered(*args: str, begin: str = "") -> list[str]:
    completer = ShellComplete(swarmctl.command, {}, "swarmctl", "_SWARMCTL_COMPLETE")
    return [item.value for item in completer.get_completions(list(args), begin)]


@pytest.fixture
def socket(manager: FakeManager, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SWARM_SOCKET", manager.socket)
    three_nodes(manager)
    service = Service(id="s1")
    service.spec.annotations.name = "web"
    manager.put(service)
    return manager.socket


def test_commands_and_flags_are_offered() -> None:
    assert offered(begin="serv") == ["service"]
    assert "--restart-delay" in offered("service", "create", begin="--restart")


@pytest.mark.usefixtures("socket")
def test_names_of_nodes_and_services_are_offered() -> None:
    assert offered("node", "inspect", begin="docker") == ["docker1", "docker2", "docker3"]
    assert offered("service", "remove", "other") == ["web"]
    assert offered("secret", "create") == [], "a new name is not completed"


def test_the_socket_on_the_command_line_is_the_one_that_is_asked(socket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWARM_SOCKET")

    assert offered("-s", socket, "service", "inspect") == ["web"]


def test_without_a_manager_nothing_is_offered_and_nothing_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert offered("-s", "/nonexistent.sock", "node", "inspect") == []
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("socket")
@pytest.mark.parametrize("kind", names_of._KINDS)
def test_every_kind_can_be_asked_for(kind: str) -> None:
    command = "plugins" if kind == "plugin" else kind

    assert all(isinstance(name, str) for name in offered(command, "inspect"))
