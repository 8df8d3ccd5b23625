"""What the log keeps when the process is killed, or the power goes, at the worst moment: found by the simulation."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import cast
from unittest.mock import patch

import pytest

from swarmcore.raft.types import Entry, EntryKind, HardState
from swarmcore.replication import durable, frames, keys, log_file, snapshot_file
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import DiskFailedError, LogContents, LogFile
from swarmcore.testing.simulation.files import Files, PowerCut, SimulatedOs

SEEDS = range(10)
MARK = HardState(1, 0, 0)


def entry(index: int) -> Entry:
    return Entry(index, 1, EntryKind.NORMAL, b"x" * 100)


@pytest.fixture(autouse=True)
def simulated_os() -> Iterator[None]:
    simulated = SimulatedOs(Random(1))
    patches = [patch.object(module, "os", simulated) for module in (durable, frames, keys, log_file, snapshot_file)]
    for one in patches:
        one.start()
    yield
    for one in patches:
        one.stop()


def open_log(files: Files, *, segment_bytes: int = 1 << 20) -> tuple[LogFile, LogContents]:
    folder = cast(Path, files.path("/raft"))
    folder.mkdir()
    ring = KeyRing.open(folder / "keys") if (folder / "keys").exists() else KeyRing.create(folder / "keys")
    return LogFile.open(folder, ring, segment_bytes=segment_bytes, reserve_bytes=0)


def indices(contents: LogContents) -> list[int]:
    return [entry.index for entry in contents.entries]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_found_after_a_kill_survives_a_power_cut(seed: int) -> None:
    files = Files(Random(seed))
    log, _ = open_log(files)
    log.append([MARK, entry(1)])
    log._sync = lambda descriptor: None  # killed before the sync
    log.append([entry(2)])
    files = files.after_kill()
    _, found = open_log(files)

    _, left = open_log(files.after_power_cut())

    assert indices(left) == indices(found) == [1, 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_failed_sync_was_for_is_not_found_again(seed: int) -> None:
    files = Files(Random(seed))
    log, _ = open_log(files)
    log.append([MARK, entry(1)])
    files.is_failing = True
    with pytest.raises(DiskFailedError):
        log.append([entry(2)])
    files = files.after_kill()
    log, found = open_log(files)
    log.append([entry(2)])

    _, left = open_log(files.after_power_cut())

    assert indices(found) == [1]
    assert indices(left) == [1, 2]


@pytest.mark.parametrize("fuse", range(1, 30))
def test_what_was_acknowledged_survives_a_power_cut_at_any_change_of_the_disk(fuse: int) -> None:
    files = Files(Random(fuse))
    log, _ = open_log(files, segment_bytes=300)
    log.append([MARK, entry(1)])
    files.fuse = fuse
    acknowledged = 1
    with suppress(PowerCut):
        for index in range(2, 20):
            log.append([entry(index)])
            acknowledged = index
    assert files.image is not None

    _, left = open_log(files.image)

    assert indices(left)[:acknowledged] == list(range(1, acknowledged + 1))
    assert len(left.entries) <= acknowledged + 1


def test_a_full_disk_takes_what_fits_and_says_so() -> None:
    files = Files(Random(1), capacity=10)
    simulated = SimulatedOs(Random(1))
    descriptor = simulated.open(files.path("/file"), simulated.O_WRONLY | simulated.O_CREAT)

    assert simulated.write(descriptor, b"x" * 20) == 10
    with pytest.raises(OSError, match="No space left") as caught:
        simulated.write(descriptor, b"x")
    assert caught.value.errno == errno.ENOSPC
