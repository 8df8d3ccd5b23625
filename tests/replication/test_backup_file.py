"""A backup on disk: whole for who knows the passphrase, and nothing for anyone else."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest

from swarmcore.api.backup_pb2 import BackupHeader, BackupPart
from swarmcore.errors import ConfigurationError
from swarmcore.replication import backup_file
from swarmcore.replication.backup_file import BackupReader, BackupWriter, read_passphrase

CHEAP = (4, 8, 1)
PASSPHRASE = b"correct horse"
PIECES = [b"one" * 100, b"", b"three" * 50_000]


def write(path: Path, pieces: list[bytes] = PIECES) -> bytes:
    writer = BackupWriter(path, PASSPHRASE, scrypt=CHEAP)
    writer.add(BackupPart(header=BackupHeader(id="b1", index=7)))
    for piece in pieces:
        writer.add(BackupPart(piece=piece))
    writer.add(BackupPart(end=len(pieces)), is_last=True)
    writer.finish()
    return path.read_bytes()


def read(path: Path, passphrase: bytes = PASSPHRASE) -> tuple[BackupHeader, list[bytes]]:
    reader = BackupReader(path, passphrase)
    try:
        return reader.header, list(reader.pieces())
    finally:
        reader.close()


def test_what_was_written_is_read_and_only_its_owner_may(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    data = write(path)

    header, pieces = read(path)

    assert (header.id, header.index, pieces) == ("b1", 7, PIECES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"one" * 100 not in data and list(tmp_path.iterdir()) == [path]


def test_another_passphrase_is_said_to_be_wrong(tmp_path: Path) -> None:
    write(tmp_path / "backup")

    with pytest.raises(ConfigurationError, match="the passphrase is not that of the backup"):
        read(tmp_path / "backup", b"wrong horse")


def test_it_is_told_at_every_length_that_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    data = write(path, [b"a", b"b"])

    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ConfigurationError, match=r"is damaged at byte \d+|is no backup of"):
            read(path)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    data = write(path, [b"a", b"b"])

    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(ConfigurationError, match=r"is damaged at byte \d+|is no backup of"):
            read(path)


def test_parts_that_are_missing_doubled_moved_or_added_are_found(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    data = write(path, [b"a" * 50, b"b" * 50, b"c" * 50])
    chunks, at = [], backup_file._HEADER_BYTES
    head = data[:at]
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        chunks.append(data[at:end])
        at = end
    assert b"".join((head, *chunks)) == data

    for wrong in (
        chunks[:1] + chunks[2:],
        chunks[:2] + chunks[1:],
        [chunks[0], chunks[2], chunks[1], *chunks[3:]],
        [*chunks, chunks[-1]],
        chunks[:-1],
        [],
    ):
        path.write_bytes(b"".join((head, *wrong)))
        with pytest.raises(ConfigurationError, match=r"is damaged at byte \d+"):
            read(path)


def test_a_file_of_chance_is_no_backup_and_asks_for_nothing(tmp_path: Path) -> None:
    chance = random.Random(3)
    path = tmp_path / "backup"

    for size in (0, 1, 7, 8, 60, 5000):
        path.write_bytes(chance.randbytes(size))
        with pytest.raises(ConfigurationError, match="is no backup of"):
            read(path)


def test_what_is_abandoned_leaves_no_trace_and_the_old_backup(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    old = write(path)
    writer = BackupWriter(path, PASSPHRASE, scrypt=CHEAP)
    writer.add(BackupPart(header=BackupHeader(id="b2")))

    writer.abandon()

    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_where_it_can_not_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't write the backup .*: No such file or directory"):
        BackupWriter(tmp_path / "no" / "backup", PASSPHRASE, scrypt=CHEAP)


@pytest.mark.parametrize("text", [b"", b"\n", b"short", b"short\r\n", b"x" * 5000])
def test_passphrases_that_are_none_are_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "passphrase").write_bytes(text)

    with pytest.raises(ConfigurationError, match="a passphrase has at"):
        read_passphrase(str(tmp_path / "passphrase"))


@pytest.mark.parametrize("text", [PASSPHRASE, PASSPHRASE + b"\n", PASSPHRASE + b"\r\n", PASSPHRASE + b"\nmore\n"])
def test_a_passphrase_is_the_first_line_without_its_end(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "passphrase").write_bytes(text)

    assert read_passphrase(str(tmp_path / "passphrase")) == PASSPHRASE
