"""The leader's disk hangs, for real: nothing fails, nothing ends, and its heartbeats could go on for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.testing.cluster import SwarmctlError, wait_until
from swarmcore.testing.faults import FrozenDisk, freezable_disk, short_folder, why_no_frozen_disk
from swarmcore.testing.machines import Machines

WRITE_SECONDS = 5.0
"""Within this an operator's write is done, or refused with the reason."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        reason = why_no_frozen_disk(path)
        if reason is not None:
            pytest.skip(reason)
        yield path


@pytest.fixture
def disk(folder: Path) -> Iterator[FrozenDisk]:
    with freezable_disk(folder / "m1" / "state") as disk:
        yield disk


@pytest.fixture
def machines(folder: Path, disk: FrozenDisk) -> Iterator[Machines]:
    machines = Machines(folder)
    try:
        machines.add("m1")
        yield machines
    finally:
        machines.stop()


def write(machines: Machines, by: str, name: str) -> None:
    machines.nodes[by].swarmctl("config", "create", name, stdin=b"x")


def names(machines: Machines, by: str) -> set[str]:
    return {row["Name"] for row in machines.nodes[by].swarmctl.table("config", "ls")}


def test_a_leader_whose_disk_hangs_is_replaced_and_comes_back_with_its_disk(
    machines: Machines, disk: FrozenDisk
) -> None:
    for name in ("m2", "m3"):
        machines.join(name, "manager", by="m1")
    machines.wait_managers(3, by="m1")
    write(machines, "m2", "before")

    with disk.frozen():
        began = time.monotonic()
        write_again(machines, "m2", "meanwhile")
        took = time.monotonic() - began
        machines.nodes["m1"].wait_says("this manager can't lead now: its disk has not answered a write for")
        leaders = [name for name, status in machines.managers("m2").items() if "*" in status]
    assert took < WRITE_SECONDS, took
    assert leaders in (["m2"], ["m3"])

    machines.nodes["m1"].wait_says("this manager can lead again")
    wait_until(lambda: _has(machines, "m1", {"before", "meanwhile"}))
    machines.wait_managers(3, by="m1")
    assert machines.nodes["m1"].is_running


def _has(machines: Machines, by: str, wanted: set[str]) -> None:
    try:
        assert names(machines, by) == wanted
    except SwarmctlError as error:
        raise AssertionError(str(error)) from None


def write_again(machines: Machines, by: str, name: str) -> None:
    """Write, and ask again when nobody knows whether it was done."""

    def done() -> None:
        try:
            write(machines, by, name)
        except SwarmctlError as error:
            # The first try may have been done all the same.
            if "exist" not in str(error):
                raise AssertionError(str(error)) from None

    wait_until(done, seconds=15)


def test_a_manager_alone_says_why_its_writes_fail_and_goes_on(machines: Machines, disk: FrozenDisk) -> None:
    write(machines, "m1", "before")

    with disk.frozen():
        began = time.monotonic()
        with pytest.raises(SwarmctlError, match="its disk has not answered a write for"):
            write(machines, "m1", "lost")
        took = time.monotonic() - began
        assert names(machines, "m1") == {"before"}
    assert took < WRITE_SECONDS + 2.0

    def resumed() -> None:
        try:
            write(machines, "m1", "after")
        except SwarmctlError as error:
            raise AssertionError(str(error)) from None

    wait_until(resumed)
    # It was never said that it would not be done.
    assert names(machines, "m1") == {"before", "lost", "after"}
