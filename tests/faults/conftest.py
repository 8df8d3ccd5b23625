"""Nodes of real processes for tests of faults."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd
from swarmcore.testing.faults import marked, processes, short_folder
from swarmcore.testing.ports import free_port


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """End what a test that failed left running; tasks outlive their swarmd."""
    yield
    for pid in processes(*(marked(number) for number in range(100))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def manager(folder: Path) -> Iterator[Swarmd]:
    """A manager that lets everyone join, runs processes, and comes back on the same port."""
    flags = ("--listen-remote-api", f"127.0.0.1:{free_port()}", "--hostname", "m1", "--executor", "process")
    with swarmd(folder / "m1", *flags, "--accept", "auto") as node:
        yield node
