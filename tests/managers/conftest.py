"""Three managers and a worker of real processes, shared by the tests of one file: each leaves them as it found them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from swarmcore.testing.faults import marked, processes, short_folder
from swarmcore.testing.machines import Machines

MANAGERS = ("m1", "m2", "m3")


@pytest.fixture(scope="module")
def group() -> Iterator[Machines]:
    with short_folder() as folder:
        machines = Machines(folder)
        try:
            machines.add("m1")
            for name in MANAGERS[1:]:
                machines.join(name, "manager", by="m1")
            machines.join("w1", "worker", by="m1")
            yield machines
        finally:
            for node in machines.nodes.values():
                if node.is_running:
                    node.kill()
            for pid in processes(*(marked(number) for number in range(100))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
