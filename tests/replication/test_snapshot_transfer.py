"""A snapshot that breaks off on its way goes on where it broke, and only where that is the same snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Config
from swarmcore.errors import AbortedError
from swarmcore.raft.membership import Membership
from swarmcore.raft.messages import InstallSnapshot
from swarmcore.raft.types import SnapshotMeta
from swarmcore.replication.disk import Disk
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.snapshot_file import (
    SnapshotReader,
    SnapshotWriter,
    received_path,
    received_pieces,
    snapshot_path,
    snapshot_paths,
)
from swarmcore.replication.snapshots import Limits
from swarmcore.replication.snapshotter import receive_snapshot
from swarmcore.replication.state_folder import description
from swarmcore.store import store as store_module
from swarmcore.testing.manager_group import GroupMember, manager_group
from swarmcore.testing.replication import running_replica
from swarmcore.testing.wire import Wire, wire

META = SnapshotMeta(index=9, term=3, membership=Membership.single("node-1", "127.0.0.1:1"))
TRANSFER = "0123456789abcdef"


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "keys.json")


@pytest.fixture
async def disk() -> AsyncIterator[Disk]:
    disk = Disk("test")
    yield disk
    await disk.close()


def pieces(first: int, last: int) -> Iterator[bytes]:
    return (b"piece %d" % number for number in range(first, last))


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def size_of_parts(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.part"))


async def coming(first: int, last: int, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for piece in pieces(first, last):
        yield piece
    if breaks:
        raise AbortedError("the stream broke")


async def receive(
    folder: Path, keys: KeyRing, disk: Disk, stream: AsyncIterator[bytes], *, first: int = 0, transfer: str = TRANSFER
) -> int | None:
    return await receive_snapshot(folder, keys, disk, META, stream, transfer=transfer, first=first)


async def held(folder: Path, keys: KeyRing, disk: Disk, transfer: str = TRANSFER, meta: SnapshotMeta = META) -> int:
    return await disk.submit(lambda: received_pieces(folder, keys, meta.index, description(meta), transfer))


async def broken_off(folder: Path, keys: KeyRing, disk: Disk, count: int) -> Path:
    with pytest.raises(AbortedError):
        await receive(folder, keys, disk, coming(0, count, breaks=True))
    return received_path(folder, META.index, TRANSFER)


def content(folder: Path, keys: KeyRing) -> list[bytes]:
    return list(SnapshotReader(snapshot_path(folder, META.index), keys).pieces())


async def test_what_came_before_the_break_is_not_sent_again(tmp_path: Path, keys: KeyRing, disk: Disk) -> None:
    await broken_off(tmp_path, keys, disk, 3)
    assert snapshot_paths(tmp_path) == []
    first = await held(tmp_path, keys, disk)

    await receive(tmp_path, keys, disk, coming(first, 5), first=first)

    assert first == 3
    assert content(tmp_path, keys) == list(pieces(0, 5))
    assert names(tmp_path, "*.part") == []


async def test_what_another_process_received_counts_too(tmp_path: Path, keys: KeyRing, disk: Disk) -> None:
    await broken_off(tmp_path, keys, disk, 3)

    again = KeyRing.open(tmp_path / "keys.json", None)

    assert await held(tmp_path, again, disk) == 3


@pytest.mark.parametrize("cut", [1, 10, 30, 60])
async def test_a_piece_that_is_not_whole_does_not_count(tmp_path: Path, keys: KeyRing, disk: Disk, cut: int) -> None:
    path = await broken_off(tmp_path, keys, disk, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    first = await held(tmp_path, keys, disk)

    await receive(tmp_path, keys, disk, coming(first, 5), first=first)

    assert first < 3
    assert content(tmp_path, keys) == list(pieces(0, 5))


async def test_bytes_that_were_never_written_do_not_count(tmp_path: Path, keys: KeyRing, disk: Disk) -> None:
    path = await broken_off(tmp_path, keys, disk, 3)
    data = bytearray(path.read_bytes())
    data[-100:-40] = bytes(60)
    path.write_bytes(data)

    assert await held(tmp_path, keys, disk) < 3


@pytest.mark.parametrize(
    "meta",
    [
        SnapshotMeta(index=9, term=4, membership=META.membership),
        SnapshotMeta(index=10, term=3, membership=META.membership),
        SnapshotMeta(index=9, term=3, membership=Membership.single("node-2", "127.0.0.1:1")),
    ],
    ids=["another term", "another index", "another membership"],
)
async def test_another_snapshot_begins_anew(tmp_path: Path, keys: KeyRing, disk: Disk, meta: SnapshotMeta) -> None:
    await broken_off(tmp_path, keys, disk, 3)

    assert await held(tmp_path, keys, disk, meta=meta) == 0
    assert await held(tmp_path, keys, disk, transfer="another") == 0


async def test_a_part_under_an_older_key_begins_anew(tmp_path: Path, keys: KeyRing, disk: Disk) -> None:
    await broken_off(tmp_path, keys, disk, 3)

    await disk.submit(keys.rotate)

    assert await held(tmp_path, keys, disk) == 0
    await receive(tmp_path, keys, disk, coming(0, 5))
    assert content(tmp_path, keys) == list(pieces(0, 5))


async def test_of_what_is_never_finished_only_the_last_is_kept(tmp_path: Path, keys: KeyRing, disk: Disk) -> None:
    for number in range(4):
        with pytest.raises(AbortedError):
            await receive(tmp_path, keys, disk, coming(0, 2, breaks=True), transfer=f"{number}")

    await disk.submit(lambda: None)
    assert names(tmp_path, "*.part") == [received_path(tmp_path, META.index, "3").name]


async def test_a_sender_that_counts_otherwise_is_told_to_begin_anew(tmp_path: Path, keys: KeyRing, disk: Disk) -> None:
    await broken_off(tmp_path, keys, disk, 3)

    with pytest.raises(AbortedError, match="3 pieces of the snapshot are here, not 2: send it again"):
        await receive(tmp_path, keys, disk, coming(2, 5), first=2)
    assert await held(tmp_path, keys, disk) == 3
    await receive(tmp_path, keys, disk, coming(0, 5), first=0)

    assert content(tmp_path, keys) == list(pieces(0, 5))


async def test_what_a_failed_sync_was_for_is_not_kept(
    tmp_path: Path, keys: KeyRing, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: SnapshotWriter) -> Path:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(SnapshotWriter, "finish", fail)

    with pytest.raises(Exception, match="can't write a snapshot"):
        await receive(tmp_path, keys, disk, coming(0, 3))
    await disk.submit(lambda: None)

    assert names(tmp_path, "snapshot-*") == []


async def test_a_new_stream_ends_the_one_that_hangs(folder: Path) -> None:
    async with running_replica(folder) as running:
        replica = running.replica
        message = InstallSnapshot(
            sender=2, to=1, term=1, snapshot=SnapshotMeta(index=99, term=1, membership=META.membership)
        )
        arrived = asyncio.Event()

        async def hanging() -> AsyncIterator[bytes]:
            yield b"piece 0"
            yield b"piece 1"
            arrived.set()
            await asyncio.Event().wait()

        first = asyncio.create_task(replica.install(message, hanging(), transfer=TRANSFER))
        await asyncio.wait_for(arrived.wait(), 10)

        assert await asyncio.wait_for(replica.received(message, TRANSFER), 10) == 2
        with pytest.raises(AbortedError, match="sent anew"):
            await first


# A whole group


class Elsewhere(GroupMember):
    """A member that the others reach by a wire."""

    cable: Wire

    @property
    def address(self) -> str:
        return self.cable.address


@asynccontextmanager
async def by_wire(member: Elsewhere) -> AsyncIterator[Wire]:
    async with wire("127.0.0.1:1") as cable:
        member.cable = cable
        yield cable


async def test_a_manager_that_joins_by_a_bad_wire_gets_each_piece_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SNAPSHOT_PIECE_BYTES", 20_000)
    limits = Limits(snapshot_entries=10, keep_entries=1)
    async with manager_group(tmp_path, 1, limits) as group:
        leader = await group.leader()

        def fill(tx: object) -> None:
            for number in range(60):
                config = Config(id=f"c{number:02}")
                config.spec.annotations.name = config.id
                config.spec.data = bytes(ord("a") + (number * at) % 26 for at in range(15_000))
                tx.config.create(config)  # type: ignore[attr-defined]

        await leader.store.update(fill)
        for number in range(12):
            await leader.store.update(lambda tx, id=f"n{number}": tx.config.create(_named(id)))  # type: ignore[misc]
        await group.wait(lambda: leader.replica.snapshot_index > 5)
        member = Elsewhere("late", tmp_path / "late", limits)
        async with by_wire(member) as cable:
            cable.limit = 500_000
            await member.start(join=leader)
            cable.target = f"127.0.0.1:{member._port}"
            group.members["late"] = member
            received = member.replica.received
            asked: list[int] = []

            async def watched(message: InstallSnapshot, transfer: str) -> int:
                asked.append(await received(message, transfer))
                return asked[-1]

            monkeypatch.setattr(member.replica, "received", watched)
            await group.wait(lambda: cable.limit is None and size_of_parts(tmp_path / "late") > 1000)
            cable.mend()
            cable.cut()
            await group.wait(lambda: all(f"n{number}" in member.store.view.config for number in range(12)))

            assert max(asked) > 0
            assert len(member.store.view.config) == len(leader.store.view.config)
            await member.stop()


def _named(id: str) -> Config:
    config = Config(id=id)
    config.spec.annotations.name = id
    return config
