"""The key file, and a rotation of the data keys, cut off at any moment: the old key opens it, or the new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from swarmcore.errors import ConfigurationError
from swarmcore.replication import durable, keys
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.snapshots import Limits
from swarmcore.testing.replication import Running, running_replica
from swarmcore.testing.simulation.files import Files, PowerCut, SimulatedOs

SALT = bytes(32)
OLD, NEW = b"old" * 11, b"new" * 11
CALLS = ("open", "write", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "fchmod")
Change = Callable[[KeyRing], object]

CHANGES: dict[str, tuple[bytes | None, Change, bytes | None]] = {
    "locked": (None, lambda ring: ring.lock(NEW), NEW),
    "locked anew": (OLD, lambda ring: ring.lock(NEW), NEW),
    "unlocked": (OLD, lambda ring: ring.lock(None), None),
    "with another data key": (OLD, KeyRing.rotate, OLD),
    "without an old data key": (OLD, lambda ring: ring.retain({ring.current}), OLD),
    "with another key of the identity": (OLD, KeyRing.fresh_identity, OLD),
    "without an old key of the identity": (OLD, lambda ring: ring.retain_identity(ring.identity_keys[0]), OLD),
}


def content(path: Path, unlock_key: bytes | None) -> list[bytes] | None:
    """The secrets in a key file; None where it does not open. A damaged one is a failure of the test."""
    try:
        ring = KeyRing.open(path, unlock_key)
    except ConfigurationError:
        return None
    sealing = [ring.file_key(number, SALT, b"test") for number in (1, 2, 3)]
    return [*ring.identity_keys, *(each.encrypt(bytes(12), b"", None) for each in sealing if each is not None)]


@pytest.mark.parametrize("name", CHANGES)
def test_a_power_cut_at_any_moment_leaves_the_old_keys_or_the_new_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, change, after = CHANGES[name]
    cuts = 0
    for seed in range(20):
        chance = Random(seed)
        simulated = SimulatedOs(chance)
        monkeypatch.setattr(durable, "os", simulated)
        monkeypatch.setattr(keys, "os", simulated)
        for fuse in range(1, 100):
            files = Files(chance)
            path = cast(Path, files.path("/raft/keys.json"))
            ring = KeyRing.create(path, before, is_identity_exposed=True)
            ring.rotate()
            if "identity" in name and "old" in name:
                ring.fresh_identity()
            old = content(path, before)
            files.fuse = fuse
            try:
                change(ring)
            except PowerCut:
                cuts += 1
            else:
                files.fuse = 0
                assert content(path, after) is not None
                break
            for left in (files.image, files.after_kill()):
                assert left is not None
                found = cast(Path, left.path("/raft/keys.json"))
                opened = content(found, before) or content(found, after)
                assert old is not None and opened is not None
                assert len(set(old) - set(opened)) == (1 if "without" in name and opened != old else 0)
        else:
            raise AssertionError("it never ends")
    assert cuts >= 5 * 20


class Killed(BaseException):
    """Nothing that the process still wanted to do happens."""


@contextlib.contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """From this call on that changes the disk, every one fails as in a process that is gone."""
    count, was_killed = 0, [False]
    with monkeypatch.context() as patch:

        def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count >= step:
                    was_killed[0] = True
                    raise Killed
                return real(*args, **kwargs)

            return call

        for name in CALLS:
            patch.setattr(os, name, guarded(getattr(os, name)))
        yield was_killed


async def _rotate_killed_at(step: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the rotation was cut off before its end."""
    limits = Limits(keep_entries=0, reserve_bytes=0)
    async with running_replica(folder, limits=limits, unlock_key=NEW) as running:
        with killed_at(step, monkeypatch) as was_killed, contextlib.suppress(Killed):
            await running.replica.rotate_keys()
    return was_killed[0]


async def test_a_rotation_of_the_data_keys_loses_nothing_wherever_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = set()
    for step in range(1, 200):
        folder = tmp_path / str(step) / "raft"
        async with running_replica(folder) as running:
            await running.create("before")
            await running.replica.change_keys(lambda ring: ring.lock(NEW))

        was_killed = await _rotate_killed_at(step, folder, monkeypatch)

        async with running_replica(folder, unlock_key=NEW) as running:
            assert running.task_ids == ["before"]
            await _finish(running)
            assert running.task_ids == ["before", "after"]
            numbers.add(running.replica.keys.current)
        async with running_replica(folder, unlock_key=NEW) as running:
            assert running.task_ids == ["before", "after"]
        if not was_killed:
            break
    else:
        raise AssertionError("it never ends")
    assert step > 10
    assert numbers == {2}


async def _finish(running: Running) -> None:
    """What a manager does at its next start, where keys are in use that stood in the open."""
    keys = running.replica.keys
    if keys.is_data_exposed:
        await running.replica.rotate_keys()
    await running.create("after")
