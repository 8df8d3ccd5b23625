"""Every flag and argument of `swarmctl` with values that nobody should type: refused in one line, nothing changed."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import grpc
import pytest

from swarmcore.api import control_pb2 as pb
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.cli import swarmctl
from swarmcore.testing.cluster import Swarmd, program, swarmd
from swarmcore.testing.faults import only_complaint, short_folder

HOSTILE = {
    "empty": "",
    "long": "x" * 100_000,
    "NUL": "a\0b",
    "control characters": "\x1b[2J\r\nError: x",
    "negative": "-1",
    "huge": "9" * 40,
    "no UTF-8": "\udcff\udcfe",
    "not a number": "nan",
}
SERVICE = ("--runtime", "process", "--command", "sleep", "--replicas", "0")
BASE: dict[str, tuple[str, ...]] = {
    "service create": ("--name", "fresh", *SERVICE),
    "service update": ("target",),
    "service inspect": ("target",),
    "cluster update": ("default",),
    "cluster inspect": ("default",),
    "cluster unlock-key": ("default",),
    "node update": ("m1",),
    "node inspect": ("m1",),
    "secret create": ("fresh", "/dev/null"),
    "config create": ("fresh", "/dev/null"),
    "network create": ("--name", "fresh"),
}
"""Arguments with which a command works; others get none, and each argument a hostile value in turn."""


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, with the words that name them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        elif command is not None:
            yield " ".join((*path, name)), command


def lazy_leaves() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, (module, _) in swarmctl.COMMANDS.items():
        command = importlib.import_module(module).command
        if isinstance(command, click.Group):
            found.update(leaves(command, (name,)))
        else:
            found[name] = command
    return found


COMMANDS = lazy_leaves()


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


class Session:
    """`swarmctl` in this process, on a real manager, and what that manager holds."""

    def __init__(self, node: Swarmd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._channel = grpc.insecure_channel(f"unix:{node.socket}", [("grpc.use_local_subchannel_pool", 1)])
        self._control = ControlStub(self._channel)
        monkeypatch.setenv("SWARM_SOCKET", str(node.socket))

    def close(self) -> None:
        self._channel.close()

    def run(self, *args: str) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["swarmctl", *args])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            swarmctl.main()
        written = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, written.out, written.err)

    def state(self) -> dict[str, bytes]:
        """Everything that an operator can change: specs, join tokens, and versions of what only operators write.

        The manager itself writes to the status of services, nodes, clusters and networks, and may do so at any time.
        """
        control = self._control
        services = control.ListServices(pb.ListServicesRequest()).services
        clusters = control.ListClusters(pb.ListClustersRequest()).clusters
        files: list[Any] = [
            *control.ListSecrets(pb.ListSecretsRequest()).secrets,
            *control.ListConfigs(pb.ListConfigsRequest()).configs,
        ]
        held: list[Any] = [
            *services,
            *clusters,
            *files,
            *control.ListNodes(pb.ListNodesRequest()).nodes,
            *control.ListNetworks(pb.ListNetworksRequest()).networks,
        ]
        return {
            **{each.id: each.spec.SerializeToString(deterministic=True) for each in held},
            **{f"{each.id} tokens": each.root_ca.join_tokens.SerializeToString() for each in clusters},
            **{f"{each.id} version": each.spec_version.SerializeToString() for each in services},
            **{f"{each.id} version": each.meta.version.SerializeToString() for each in files},
        }

    def remove_fresh(self) -> None:
        for service in self._control.ListServices(pb.ListServicesRequest()).services:
            if service.spec.annotations.name != "target":
                self._control.RemoveService(pb.RemoveServiceRequest(service_id=service.id))
        for secret in self._control.ListSecrets(pb.ListSecretsRequest()).secrets:
            self._control.RemoveSecret(pb.RemoveSecretRequest(secret_id=secret.id))
        for config in self._control.ListConfigs(pb.ListConfigsRequest()).configs:
            self._control.RemoveConfig(pb.RemoveConfigRequest(config_id=config.id))
        for network in self._control.ListNetworks(pb.ListNetworksRequest()).networks:
            self._control.RemoveNetwork(pb.RemoveNetworkRequest(network_id=network.id))


@pytest.fixture(scope="module")
def running() -> Iterator[Swarmd]:
    flags = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "process")
    with short_folder() as folder, swarmd(folder / "m1", *flags) as node:
        node.swarmctl("service", "create", "--name", "target", *SERVICE)
        yield node
        assert "Traceback" not in node.log


@pytest.fixture
def session(running: Swarmd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Session]:
    made = Session(running, monkeypatch, capsys)
    yield made
    made.close()


def cases(path: str, command: click.Command) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is tried, for the report, and the arguments of each try."""
    base = BASE.get(path, ())
    for parameter in command.params:
        for kind, value in HOSTILE.items():
            if isinstance(parameter, click.Argument):
                yield f"{parameter.name}: {kind}", ("--", value)
            elif not parameter.is_flag and not parameter.hidden:  # type: ignore[attr-defined]
                flag = parameter.opts[-1]
                yield f"{flag}: {kind}", (*base, f"{flag}={value}" if flag.startswith("--") else f"{flag}{value}")


def fault(before: dict[str, bytes], ended: Ended, after: dict[str, bytes]) -> str:
    """What is wrong with how a command ended; empty for nothing."""
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}"
    if any(not (char.isprintable() or char == "\n") for char in ended.out + ended.err):
        return f"control characters reach the terminal: {ended.err[:200]!r}"
    if ended.code == 0:
        return "" if not ended.err else f"success with words on stderr: {ended.err[:200]!r}"
    if ended.err.count("\n") != 1 or not ended.err.startswith("Error: "):
        return f"not one line: {ended.err[:300]!r}"
    if len(ended.err) > 2000:
        return f"a line of {len(ended.err)} characters"
    return "" if before == after else "refused, and something changed"


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_hostile_values(path: str, session: Session) -> None:
    faults = []
    for name, args in cases(path, COMMANDS[path]):
        before = session.state()
        ended = session.run(*path.split(), *args)
        after = session.state()
        if wrong := fault(before, ended, after):
            faults.append(f"{name}: {wrong}")
        if after.keys() != before.keys():
            session.remove_fresh()

    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"-1", b"x" * 100_000, b"\x1b[2J"], ids=repr)
def test_the_program_itself_refuses_in_one_line(value: bytes, running: Swarmd) -> None:
    for args in ((b"--replicas", value), (b"--name", value), (b"--constraint", value)):
        done = subprocess.run(
            [
                *(program("swarmctl").encode(), b"--socket", str(running.socket).encode(), b"service", b"create"),
                *(b"--runtime", b"process", b"--command", b"sleep", *args),
            ],
            capture_output=True,
            check=False,
        )

        assert done.returncode in (1, 2)
        assert only_complaint(done.stderr.decode(errors="replace")).isprintable()
