"""A manager with a control socket, and `swarmctl`, run in-process against it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from swarmcore.cli import swarmctl
from swarmcore.testing.control_socket import Ctl, FakeManager, Result


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    server = FakeManager()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bare_ctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """Run `swarmctl` with these arguments, in this process; nothing tells it a socket."""

    def run(*args: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["swarmctl", *args])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            swarmctl.main()
        written = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, written.out, written.err)

    return run


@pytest.fixture
def ctl(bare_ctl: Ctl, manager: FakeManager, monkeypatch: pytest.MonkeyPatch) -> Ctl:
    """Run `swarmctl` against `manager`."""
    monkeypatch.setenv("SWARM_SOCKET", manager.socket)
    return bare_ctl
