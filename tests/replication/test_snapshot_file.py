"""Snapshot files: complete under their name, or not there."""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path

import pytest

from swarmcore.errors import DamagedStateError
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.snapshot_file import (
    SnapshotReader,
    SnapshotWriter,
    received_pieces,
    remove_before,
    remove_unfinished,
    snapshot_paths,
)

PIECES = [b"a" * 1000, b"", b"b" * 300_000]


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "keys.json")


def write(folder: Path, keys: KeyRing, index: int = 7) -> Path:
    writer = SnapshotWriter(folder, keys, index, b"description")
    for piece in PIECES:
        writer.add(piece)
    return writer.finish()


def test_a_snapshot_reads_back(tmp_path: Path, keys: KeyRing) -> None:
    reader = SnapshotReader(write(tmp_path, keys), keys)

    assert (reader.index, reader.description, list(reader.pieces())) == (7, b"description", PIECES)


def test_an_unfinished_snapshot_has_no_name(tmp_path: Path, keys: KeyRing) -> None:
    writer = SnapshotWriter(tmp_path, keys, 7, b"description")
    writer.add(PIECES[0])

    assert snapshot_paths(tmp_path) == []
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
    writer.abandon()


def test_older_snapshots_go_when_there_is_a_newer(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, 7)
    newer = write(tmp_path, keys, 9)

    remove_before(tmp_path, 9)

    assert snapshot_paths(tmp_path) == [newer]


def test_any_flipped_bit_is_found(tmp_path: Path, keys: KeyRing) -> None:
    path = write(tmp_path, keys)
    whole = path.read_bytes()
    for position in range(0, len(whole), 13):
        data = bytearray(whole)
        data[position] ^= 4
        path.write_bytes(data)

        with pytest.raises(DamagedStateError, match=f"'{path}' is damaged at byte"):
            list(SnapshotReader(path, keys).pieces())


def test_a_snapshot_cut_short_is_found(tmp_path: Path, keys: KeyRing) -> None:
    path = write(tmp_path, keys)
    path.write_bytes(path.read_bytes()[:-60])

    with pytest.raises(DamagedStateError, match="does not match its checksum"):
        list(SnapshotReader(path, keys).pieces())


def test_a_snapshot_of_any_size_takes_the_memory_of_a_piece(tmp_path: Path, keys: KeyRing) -> None:
    piece, count = os.urandom(256 * 1024), 64
    writers = [
        SnapshotWriter(tmp_path, keys, index, b"d", transfer=transfer) for index, transfer in ((7, ""), (8, "t"))
    ]
    for writer in writers:
        for _ in range(count):
            writer.add(piece)
    path = writers[0].finish()
    writers[1].pause()
    gc.collect()
    tracemalloc.start()
    try:
        read = sum(1 for _ in SnapshotReader(path, keys).pieces())
        received = received_pieces(tmp_path, keys, 8, b"d", "t")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (read, received) == (count, count)
    assert peak < 8 * len(piece)


def test_a_snapshot_that_is_being_read_may_be_removed(tmp_path: Path, keys: KeyRing) -> None:
    path = write(tmp_path, keys)
    reader = SnapshotReader(path, keys)
    pieces = reader.pieces()

    assert next(pieces) == PIECES[0]
    path.unlink()

    assert list(pieces) == PIECES[1:]


def test_a_snapshot_that_shrinks_while_it_is_read_is_damaged(tmp_path: Path, keys: KeyRing) -> None:
    path = write(tmp_path, keys)
    pieces = SnapshotReader(path, keys).pieces()
    next(pieces)
    os.truncate(path, path.stat().st_size - 60)

    with pytest.raises(DamagedStateError, match="does not match its checksum"):
        list(pieces)


def test_a_reader_that_nobody_has_any_more_holds_no_file(tmp_path: Path, keys: KeyRing) -> None:
    path = write(tmp_path, keys)

    def held() -> int:
        return sum(link.resolve() == path for link in Path("/proc/self/fd").iterdir() if link.exists())

    pieces = SnapshotReader(path, keys).pieces()
    next(pieces)
    assert held() == 1
    del pieces
    assert held() == 0
