"""The replica: what it acknowledged is there after a restart, and what it can't keep it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from swarmcore.errors import ConfigurationError, DamagedStateError, NotLeaderError, ResourceExhaustedError
from swarmcore.replication import log_file as log_file_module
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import DiskFailedError, segment_paths
from swarmcore.replication.replica import Replica
from swarmcore.replication.snapshot_file import snapshot_paths
from swarmcore.replication.snapshots import Limits
from swarmcore.replication.state_folder import State, open_state
from swarmcore.store.changes import Commit
from swarmcore.store.store import Store
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.replication import Running, running_replica

OFTEN = Limits(snapshot_entries=50, keep_entries=10, segment_bytes=4096, reserve_bytes=0)


async def snapshot_of(running: Running, index: int) -> None:
    async with asyncio.timeout(20):
        while running.replica.snapshot_index < index:
            await let_the_loop_run()
        async with running.replica._snapshots.lock:
            pass


async def test_a_new_manager_leads_at_once_and_alone(folder: Path) -> None:
    async with running_replica(folder) as running:
        (member,) = running.replica.members()

        assert running.replica.term == 2
        assert (member.node_id, member.address, member.is_leader) == ("node-1", "127.0.0.1:4242", True)
        assert running.replica.is_writable


async def test_everything_is_there_after_a_restart(folder: Path) -> None:
    async with running_replica(folder) as running:
        for number in range(20):
            await running.create(f"task-{number}")
        before = list(running.store.snapshot())

    async with running_replica(folder) as running:
        assert running.task_ids == [f"task-{number}" for number in range(20)]
        assert list(running.store.snapshot()) == before
        assert running.replica.term == 3


async def test_versions_are_those_of_before_the_restart(folder: Path) -> None:
    async with running_replica(folder) as running:
        await running.create("task")
        index = running.store.version

    async with running_replica(folder) as running:
        assert running.store.version == index
        task = running.store.view.task.get("task")
        assert task is not None and task.meta.version.index == index


async def test_writers_that_wait_together_share_one_fdatasync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_replica(folder) as running:
        log_file = running.replica._log_file
        syncs: list[int] = []

        def sync(descriptor: int) -> None:
            syncs.append(descriptor)
            os.fdatasync(descriptor)

        monkeypatch.setattr(log_file, "_sync", sync)

        await asyncio.gather(*(running.create(f"task-{number}") for number in range(200)))

        assert len(running.task_ids) == 200
        assert len(syncs) <= 3


async def test_a_write_is_acknowledged_only_when_its_fsync_has_returned(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_replica(folder) as running:
        gate = threading.Event()

        def hang(descriptor: int) -> None:
            gate.wait(20)
            os.fdatasync(descriptor)

        monkeypatch.setattr(running.replica._log_file, "_sync", hang)
        write = asyncio.create_task(running.create("task"))
        await let_the_loop_run()

        assert not write.done()
        assert running.task_ids == []
        gate.set()
        await write
        assert running.task_ids == ["task"]


async def test_a_write_is_applied_and_published_before_it_returns(folder: Path) -> None:
    async with running_replica(folder) as running:
        with running.store.subscribe(["task"]) as changes:
            await running.create("task")

            (commit,) = changes.drain()
        assert isinstance(commit, Commit)
        assert commit.version == running.replica.applied


async def test_a_snapshot_takes_the_place_of_the_log_before_it(folder: Path) -> None:
    async with running_replica(folder, limits=OFTEN) as running:
        for number in range(120):
            await running.create(f"task-{number}", log="x" * 200)
        await snapshot_of(running, 100)
        before = list(running.store.snapshot())

    assert len(snapshot_paths(folder)) == 1
    assert len(segment_paths(folder)) < 12
    async with running_replica(folder, limits=OFTEN) as running:
        assert list(running.store.snapshot()) == before
        assert running.task_ids == [f"task-{number}" for number in range(120)]


async def test_a_log_that_is_large_in_bytes_makes_a_snapshot_too(folder: Path) -> None:
    async with running_replica(folder, limits=Limits(snapshot_bytes=20_000, reserve_bytes=0)) as running:
        for number in range(30):
            await running.create(f"task-{number}", log="x" * 1000)

        await snapshot_of(running, 10)


async def test_what_stays_in_the_log_is_bounded_in_bytes_too(folder: Path) -> None:
    limits = Limits(snapshot_entries=50, keep_entries=40, keep_bytes=2000, reserve_bytes=0)
    async with running_replica(folder, limits=limits) as running:
        for number in range(50):
            await running.create(f"task-{number}-{'x' * 100}")
        await snapshot_of(running, 50)

        kept = running.replica.snapshot_index - running.replica._raft.log.start_index
        assert 5 < kept < 20


async def test_one_snapshot_is_taken_of_what_made_it_due(folder: Path) -> None:
    async with running_replica(folder, limits=Limits(snapshot_bytes=20_000, reserve_bytes=0)) as running:
        await running.create("x" * 20_000)
        await running.create("while it is taken")
        await snapshot_of(running, 2)
        taken = running.replica.snapshot_index

        await running.create("after")
        await let_the_loop_run()

        assert running.replica.snapshot_index == taken
        assert not running.replica._snapshots._is_due.is_set()


async def test_writes_go_on_while_a_snapshot_is_written(folder: Path) -> None:
    async with running_replica(folder, limits=OFTEN) as running:
        await asyncio.gather(*(running.create(f"big-{number}", log="x" * 20_000) for number in range(100)))
        snapshot = asyncio.create_task(running.replica._snapshots.take())
        for number in range(20):
            await running.create(f"task-{number}")
        await snapshot
        before = list(running.store.snapshot())

    async with running_replica(folder, limits=OFTEN) as running:
        assert list(running.store.snapshot()) == before


async def test_no_room_for_a_snapshot_stops_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_replica(folder, limits=OFTEN) as running:

        def full(folder: Path, keys: KeyRing, index: int, description: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("swarmcore.replication.snapshotter.SnapshotWriter", full)
            for number in range(60):
                await running.create(f"task-{number}")
            assert not await running.replica._snapshots.take()

        assert running.replica.snapshot_index == 0
        assert await running.replica._snapshots.take()


async def test_a_failed_fsync_ends_the_replica_and_acknowledges_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_replica(folder) as running:
        await running.create("before")
        calls: list[int] = []

        def fail(descriptor: int) -> None:
            calls.append(descriptor)
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(running.replica._log_file, "_sync", fail)
        with pytest.raises(Exception, match="Input/output error"):
            await running.create("lost")

        with pytest.raises(DiskFailedError, match="Input/output error"):
            await running.run
        with pytest.raises(NotLeaderError):
            await running.create("later")
        assert calls == calls[:1]
        assert running.task_ids == ["before"]
        assert not running.replica.is_writable


async def test_without_room_writes_are_refused_reads_go_on_and_it_recovers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_replica(folder) as running:
        await running.create("before")

        def full(descriptor: int, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        log_file = running.replica._log_file
        with monkeypatch.context() as patch:
            patch.setattr(log_file_module, "write_all", full)
            patch.setattr(log_file, "has_space", lambda: False)
            for _ in range(3):
                with pytest.raises(ResourceExhaustedError, match="the disk is full"):
                    await running.create("refused")
            assert running.task_ids == ["before"]
            assert not running.replica.is_writable
            await running.replica.read_barrier()

        await running.create("after")
        assert running.task_ids == ["before", "after"]
        assert running.replica.is_writable

    async with running_replica(folder) as running:
        assert running.task_ids == ["before", "after"]


async def test_below_the_reserve_no_write_is_begun(folder: Path) -> None:
    async with running_replica(folder, limits=Limits(reserve_bytes=1 << 60)) as running:
        with pytest.raises(ResourceExhaustedError, match="reading goes on, writing resumes by itself"):
            await running.create("task")


async def test_a_manager_started_on_a_full_disk_leads_once_there_is_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_replica(folder) as running:
        await running.create("before")

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_file_module, "write_all", full)
        async with running_replica(folder, leads=False) as running:
            await running.replica._writes._disk.submit(lambda: None)
            assert running.replica.term == 0
            patch.undo()
            async with asyncio.timeout(20):
                await running.replica.wait_leadership_change(0)

            await running.create("after")
            assert running.task_ids == ["before", "after"]


async def test_leadership_ends_with_the_run(folder: Path) -> None:
    async with running_replica(folder) as running:
        term = running.replica.term
        waiting = asyncio.create_task(running.replica.wait_leadership_change(term))

        running.run.cancel()

        assert await waiting == 0
        with pytest.raises(NotLeaderError):
            await running.create("task")


async def test_another_address_is_noted_when_it_leads(folder: Path) -> None:
    async with running_replica(folder):
        pass

    async with running_replica(folder, address="127.0.0.1:5000") as running:
        await running.create("task")

        assert running.replica.members()[0].address == "127.0.0.1:5000"

    async with running_replica(folder, address="") as running:
        assert running.replica.members()[0].address == "127.0.0.1:5000"


async def test_a_locked_state_needs_its_unlock_key(folder: Path) -> None:
    async with running_replica(folder) as running:
        await running.create("task")
        await running.replica.change_keys(lambda ring: ring.lock(b"key"))

    with pytest.raises(ConfigurationError, match="node is locked, and needs a valid unlock key"):
        async with running_replica(folder):
            pass
    async with running_replica(folder, unlock_key=b"key") as running:
        assert running.task_ids == ["task"]


async def test_rotated_keys_keep_everything_readable_and_old_ones_go(folder: Path) -> None:
    limits = Limits(keep_entries=0, reserve_bytes=0)
    async with running_replica(folder, limits=limits) as running:
        await running.create("before")
        await running.replica.rotate_keys()
        await running.create("after")

    keys = KeyRing.open(folder / "keys.json")
    assert keys.current == 2
    assert keys.file_key(1, bytes(32), b"") is None
    async with running_replica(folder) as running:
        assert running.task_ids == ["before", "after"]


async def open_again(folder: Path, node_id: str = "node-1", bootstrap: bool = True) -> None:
    replica = await Replica.open(
        folder=folder, store=Store(), node_id=node_id, address="", bootstrap=bootstrap, clock=SimulatedClock()
    )
    await replica.aclose()


async def test_a_start_that_is_cancelled_keeps_nothing_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, goes_on = threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> State:
        state = open_state(*args, **kwargs)
        opened.set()
        goes_on.wait(5)
        return state

    with monkeypatch.context() as patch:
        patch.setattr("swarmcore.replication.replica.open_state", slow)
        starting = asyncio.create_task(open_again(folder))
        await asyncio.to_thread(opened.wait, 5)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        goes_on.set()

    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(ConfigurationError):
                return await open_again(folder)


async def test_without_state_and_bootstrap_it_does_not_start(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no raft state"):
        await open_again(folder, bootstrap=False)

    assert folder.name not in os.listdir(folder.parent)


async def test_the_state_of_another_node_is_refused(folder: Path) -> None:
    async with running_replica(folder):
        pass

    with pytest.raises(ConfigurationError, match="that of node 'node-1', and this node is 'node-2'"):
        await open_again(folder, node_id="node-2")


@pytest.mark.parametrize("name", ["keys.json", "member.json", "log-0000000000000001"])
async def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    async with running_replica(folder) as running:
        await running.create("task")
    (folder / name).unlink()

    with pytest.raises(DamagedStateError, match=f"{folder / name}.* is damaged at byte 0 .*(missing)"):
        await open_again(folder)


async def test_a_missing_snapshot_is_noticed(folder: Path) -> None:
    async with running_replica(folder, limits=OFTEN) as running:
        for number in range(120):
            await running.create(f"task-{number}", log="x" * 200)
        await snapshot_of(running, 100)
    snapshot_paths(folder)[0].unlink()

    with pytest.raises(DamagedStateError, match=r"entries 1 to \d+ are missing"):
        await open_again(folder)


async def test_a_folder_that_was_made_in_part_is_made_anew(folder: Path) -> None:
    half = folder.with_name("raft.new")
    os.mkdir(half)
    (half / "keys.json").write_text("half")
    os.mkdir(folder)

    async with running_replica(folder) as running:
        await running.create("task")

    assert half.name not in os.listdir(folder.parent)


async def test_a_folder_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="can't use the state in"):
        await open_again(tmp_path / "file" / "raft")


async def test_two_processes_never_share_a_folder(folder: Path) -> None:
    async with running_replica(folder):
        with pytest.raises(ConfigurationError, match="is in use by another process"):
            await open_again(folder)

    await open_again(folder)


async def test_a_long_log_is_applied_in_slices_before_it_leads(folder: Path) -> None:
    async with running_replica(folder) as running:
        await asyncio.gather(*(running.create(f"task-{number}", log="x" * 3000) for number in range(3000)))

    async with running_replica(folder, leads=False) as running:
        slices = 0
        while not running.replica.term:
            slices += 1
            await asyncio.sleep(0)
        assert slices > 1
        assert len(running.task_ids) == 3000
