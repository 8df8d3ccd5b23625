"""The log file: what was appended is there again, a torn tail is cut, damage stops the start."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmcore.errors import DamagedStateError
from swarmcore.raft.types import Entry, EntryKind, HardState
from swarmcore.replication import log_file as log_file_module
from swarmcore.replication.frames import HEADER_BYTES
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import (
    DiskFailedError,
    DiskFullError,
    LogContents,
    LogFile,
    LogStart,
    Record,
    segment_path,
    segment_paths,
)


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "keys.json")


def entry(index: int, data: bytes = b"data", term: int = 1) -> Entry:
    return Entry(index, term, EntryKind.NORMAL, data)


def write(folder: Path, keys: KeyRing, *batches: Sequence[Record], segment_bytes: int = 1 << 24) -> None:
    log, _ = LogFile.open(folder, keys, segment_bytes=segment_bytes, reserve_bytes=0)
    for batch in batches:
        log.append(batch)
    log.close()


def read(folder: Path, keys: KeyRing) -> LogContents:
    log, contents = LogFile.open(folder, keys)
    log.close()
    return contents


def last_segment(folder: Path) -> Path:
    return segment_paths(folder)[-1]


def test_what_was_appended_is_there_again(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, [HardState(3, 1, 0), entry(1), entry(2, b"")], [HardState(3, 1, 2), entry(3)])

    contents = read(tmp_path, keys)

    assert contents.hard_state == HardState(3, 1, 2)
    assert contents.entries == [entry(1), entry(2, b""), entry(3)]


def test_a_batch_costs_one_fdatasync(tmp_path: Path, keys: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = LogFile.open(tmp_path, keys)
    log.append([entry(1)])
    synced: list[int] = []
    monkeypatch.setattr(log, "_sync", synced.append)

    log.append([entry(index, b"x" * 1000) for index in range(2, 100)])

    assert len(synced) == 1
    log.close()


def test_nothing_of_an_entry_can_be_read_on_the_disk(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, [entry(1, b"the-password-of-the-database")])

    assert b"password" not in last_segment(tmp_path).read_bytes()


def test_later_entries_take_the_place_of_earlier_ones(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, [entry(1), entry(2), entry(3)], [entry(2, b"new", term=2)])

    assert read(tmp_path, keys).entries == [entry(1), entry(2, b"new", term=2)]


def test_a_received_snapshot_takes_the_place_of_what_it_covers(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, [entry(1), entry(2)], [LogStart(10, 4)], [entry(11, term=4)])

    contents = read(tmp_path, keys)

    assert contents.start == LogStart(10, 4)
    assert contents.entries == [entry(11, term=4)]


def test_segments_follow_one_another_and_repeat_the_hard_state(tmp_path: Path, keys: KeyRing) -> None:
    batches: list[Sequence[Record]] = [[HardState(7, 1, 0)], *([entry(index, b"x" * 200)] for index in range(1, 20))]
    write(tmp_path, keys, *batches, segment_bytes=1000)
    log, _ = LogFile.open(tmp_path, keys, segment_bytes=1000)

    log.compact(15)
    log.close()

    contents = read(tmp_path, keys)
    assert contents.hard_state == HardState(7, 1, 0)
    assert contents.entries[-1].index == 19
    assert 1 < contents.entries[0].index <= 15


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(cut=st.integers(min_value=1, max_value=2_000))
def test_a_write_that_was_cut_short_is_cut_off(tmp_path: Path, cut: int) -> None:
    folder = tmp_path / f"cut-{cut}"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    keys = KeyRing.create(folder / "keys.json")
    write(folder, keys, [HardState(1, 1, 0), entry(1)])
    whole = last_segment(folder).stat().st_size
    write(folder, keys, [entry(2, b"x" * 2_000)])
    with last_segment(folder).open("r+b") as file:
        file.truncate(max(whole, last_segment(folder).stat().st_size - cut))

    contents = read(folder, keys)

    assert contents.entries == [entry(1)]
    assert last_segment(folder).stat().st_size == whole


@pytest.mark.parametrize("sector", [1, 2, 3])
def test_sectors_that_never_reached_the_disk_are_a_torn_tail(tmp_path: Path, keys: KeyRing, sector: int) -> None:
    write(tmp_path, keys, [entry(1)], [entry(2, b"x" * 2_000)])
    with last_segment(tmp_path).open("r+b") as file:
        file.seek(512 * sector)
        file.write(bytes(512))

    assert read(tmp_path, keys).entries == [entry(1)]


def test_writing_goes_on_behind_a_torn_tail(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, [entry(1)], [entry(2, b"x" * 2_000)])
    with last_segment(tmp_path).open("r+b") as file:
        file.truncate(last_segment(tmp_path).stat().st_size - 5)

    write(tmp_path, keys, [entry(2, b"again")])

    assert read(tmp_path, keys).entries == [entry(1), entry(2, b"again")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(place=st.floats(min_value=0, max_value=1, exclude_max=True), bit=st.integers(min_value=0, max_value=7))
def test_any_flipped_bit_stops_the_start_with_file_and_offset(tmp_path: Path, place: float, bit: int) -> None:
    folder = tmp_path / "flip"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    keys = KeyRing.create(folder / "keys.json")
    write(folder, keys, [HardState(1, 1, 0), entry(1)], [entry(2, b"x" * 700)], [entry(3)])
    path = last_segment(folder)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)

    with pytest.raises(DamagedStateError, match=rf"{path}.* is damaged at byte \d+ \(") as raised:
        read(folder, keys)

    assert "\n" not in str(raised.value)
    assert path.read_bytes() == data


def test_a_missing_segment_stops_the_start(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, *([entry(index, b"x" * 500)] for index in range(1, 10)), segment_bytes=1000)
    segment_path(tmp_path, 2).unlink()

    with pytest.raises(DamagedStateError, match=rf"{segment_path(tmp_path, 2)}.*the file is missing"):
        read(tmp_path, keys)


def test_a_torn_end_of_an_earlier_segment_is_damage(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, *([entry(index, b"x" * 500)] for index in range(1, 10)), segment_bytes=1000)
    with segment_path(tmp_path, 1).open("r+b") as file:
        file.truncate(segment_path(tmp_path, 1).stat().st_size - 5)

    with pytest.raises(DamagedStateError, match=str(segment_path(tmp_path, 1))):
        read(tmp_path, keys)


def test_another_key_is_told_from_an_accident_of_the_disk(tmp_path: Path, keys: KeyRing) -> None:
    write(tmp_path, keys, [entry(1)])
    (tmp_path / "other").mkdir()
    other = KeyRing.create(tmp_path / "other" / "keys.json")

    with pytest.raises(DamagedStateError, match=f"byte {HEADER_BYTES} .*can't be decrypted with its key"):
        read(tmp_path, other)


def test_after_a_failed_fsync_the_log_takes_nothing_more(
    tmp_path: Path, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = LogFile.open(tmp_path, keys)
    log.append([entry(1)])

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(log, "_sync", fail)
    with pytest.raises(DiskFailedError, match="Input/output error"):
        log.append([entry(2)])
    monkeypatch.setattr(log, "_sync", os.fdatasync)

    with pytest.raises(DiskFailedError, match="failed before"):
        log.append([entry(2)])
    log.close()


def test_a_write_without_room_leaves_nothing_behind(
    tmp_path: Path, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = LogFile.open(tmp_path, keys)
    log.append([entry(1)])
    before = last_segment(tmp_path).read_bytes()

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_file_module, "write_all", half)
        with pytest.raises(DiskFullError, match="the disk is full: make space under"):
            log.append([entry(2, b"x" * 100)])

    assert last_segment(tmp_path).read_bytes() == before
    log.append([entry(2)])
    log.close()
    assert read(tmp_path, keys).entries == [entry(1), entry(2)]
