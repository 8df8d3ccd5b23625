"""Three managers and a worker as real processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.faults import marked, processes, short_folder
from swarmcore.testing.machines import Machines


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Tasks outlive their swarmd."""
    yield
    for pid in processes(*(marked(number) for number in range(100))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def machines(folder: Path) -> Iterator[Machines]:
    found = Machines(folder)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def three(machines: Machines) -> Machines:
    """m1, m2 and m3 are managers, w1 is a worker."""
    machines.add("m1")
    machines.join("m2", "manager", by="m1", ready=False)
    machines.join("m3", "manager", by="m1", ready=False)
    machines.join("w1", "worker", by="m1", ready=False)
    for name in ("m2", "m3", "w1"):
        machines.nodes[name].wait_ready()
    machines.wait_managers(3, by="m1")
    return machines
