"""A manager's folder is looked into without changing it, and every damage in it is found and named."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

import pytest

from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.replication.frames import HEADER_BYTES
from swarmcore.replication.inspection import inspect
from swarmcore.replication.replica import Replica
from swarmcore.replication.snapshots import Limits
from swarmcore.store.store import Store
from swarmcore.testing.replication import running_replica

SMALL = Limits(snapshot_entries=40, keep_entries=5, segment_bytes=2000, reserve_bytes=0)
KEY = bytes(range(32))


@pytest.fixture
async def written(folder: Path) -> Path:
    """A folder with snapshots and several segments, closed."""
    async with running_replica(folder, limits=SMALL) as running:
        for number in range(60):
            await running.create(f"task-{number}", log="x" * 200)
    return folder


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def files(folder: Path, name: str) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name.startswith(name)]


async def opens(folder: Path) -> bool:
    try:
        replica = await Replica.open(
            folder=folder, store=Store(), node_id="node-1", address="", bootstrap=False, limits=SMALL
        )
    except DamagedStateError:
        return False
    await replica.aclose()
    return True


async def test_what_is_whole_is_read_and_nothing_changes(written: Path) -> None:
    before = digest(written)

    found = inspect(written, None)

    assert not found.damage and not found.is_in_use
    assert found.last[0] >= 62 and len(found.segments) > 1 and len(found.snapshots) == 1
    assert found.snapshots[0].objects["task"] >= SMALL.snapshot_entries - 2
    assert found.membership.voters == (1,)
    assert digest(written) == before


async def test_a_running_managers_folder_can_be_read(folder: Path) -> None:
    async with running_replica(folder, limits=SMALL) as running:
        await running.create("task")
        found = inspect(folder, None)

        assert found.is_in_use and not found.damage


async def test_a_manager_that_takes_snapshots_meanwhile_is_never_found_damaged(folder: Path) -> None:
    often = Limits(snapshot_entries=5, keep_entries=2, segment_bytes=600, reserve_bytes=0)
    async with running_replica(folder, limits=often) as running:
        for number in range(30):
            looking = asyncio.create_task(asyncio.to_thread(inspect, folder, None))
            for each in range(10):
                await running.create(f"{number}-{each}", log="x" * 100)
            assert not (await looking).damage


@pytest.mark.parametrize("part", ["log", "snapshot"])
async def test_a_changed_byte_anywhere_is_named(written: Path, part: str) -> None:
    path = files(written, part)[0]
    whole = path.read_bytes()

    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = inspect(written, None)
        assert found.damage and found.damage[0].path == path
        assert found.damage[0].offset <= at


async def test_all_damage_is_listed_and_what_is_behind_it_is_read(written: Path) -> None:
    first, *_, last = files(written, "log")
    for path in (first, last):
        data = bytearray(path.read_bytes())
        data[HEADER_BYTES + 30] ^= 1
        path.write_bytes(data)

    found = inspect(written, None)

    names = [damage.path.name for damage in found.damage]
    assert first.name in names and last.name in names
    assert all(damage.offset >= HEADER_BYTES for damage in found.damage)
    assert any(segment.last_index for segment in found.segments)


@pytest.mark.parametrize("name", ["keys.json", "member.json", "snapshot", "log"])
async def test_a_file_that_is_missing_or_empty_is_named(written: Path, name: str, tmp_path: Path) -> None:
    paths = files(written, name)
    path = paths[len(paths) // 2]
    assert name != "log" or path not in (paths[0], paths[-1])
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)

    path.write_bytes(b"")
    empty = inspect(written, None)
    shutil.rmtree(written)
    copy.rename(written)
    path.unlink()
    missing = inspect(written, None)

    assert path in [damage.path for damage in empty.damage]
    assert missing.damage
    assert not await opens(written)


async def test_an_unfinished_write_is_no_damage(written: Path) -> None:
    last = files(written, "log")[-1]
    last.write_bytes(last.read_bytes()[:-3])

    found = inspect(written, None)

    assert not found.damage and found.segments[-1].unfinished_at > 0
    assert await opens(written)


async def test_a_locked_folder_needs_its_key(folder: Path) -> None:
    async with running_replica(folder, limits=SMALL) as running:
        await running.replica.change_keys(lambda keys: keys.lock(KEY))

    assert inspect(folder, KEY).is_locked
    for wrong in (None, bytes(32)):
        with pytest.raises(ConfigurationError, match="node is locked"):
            inspect(folder, wrong)
