"""A disk that is really full: a tmpfs of 8 MiB, filled by somebody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.errors import ResourceExhaustedError
from swarmcore.replication.snapshots import Limits
from swarmcore.testing.replication import Running, running_replica

LIMITS = Limits(reserve_bytes=1024 * 1024, segment_bytes=64 * 1024)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() != 0:
        pytest.skip("a small disk needs a tmpfs, and mounting one needs root")
    if (tried := subprocess.run(mount, capture_output=True, text=True)).returncode:
        pytest.skip(f"can't mount a tmpfs here: {tried.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


async def write_for_ever(running: Running, time: int) -> None:
    for number in range(1_000_000):
        await running.create(f"more-{time}-{number}", log="x" * 50_000)


async def test_a_full_disk_refuses_writes_and_recovers_by_itself(small_disk: Path) -> None:
    folder = small_disk / "raft"
    async with running_replica(folder, limits=LIMITS) as running:
        await running.create("before")
        for time in range(3):
            fill(small_disk / "somebody-else")
            with pytest.raises(ResourceExhaustedError, match="the disk is full: make space under"):
                await write_for_ever(running, time)
            assert "before" in running.task_ids
            written = len(running.task_ids)
            with pytest.raises(ResourceExhaustedError):
                await running.create("refused")
            assert len(running.task_ids) == written

            (small_disk / "somebody-else").unlink()
            await running.create(f"after-{time}")
        tasks = running.task_ids

    async with running_replica(folder, limits=LIMITS) as running:
        assert running.task_ids == tasks
        assert "refused" not in tasks
