"""The key ring: one small file, wrapped by the unlock key where there is one."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.replication.durable import replace_file
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.state_folder import read_identity_keys

SALT = bytes(32)


def sealed(ring: KeyRing, number: int = 1) -> bytes:
    cipher = ring.file_key(number, SALT, b"test")
    assert cipher is not None
    return cipher.encrypt(bytes(12), b"text", None)


def test_a_ring_reads_back_with_the_same_keys(tmp_path: Path) -> None:
    ring = KeyRing.create(tmp_path / "keys.json")

    assert sealed(KeyRing.open(tmp_path / "keys.json")) == sealed(ring)
    assert stat.S_IMODE(os.stat(tmp_path / "keys.json").st_mode) == 0o600


def test_a_locked_ring_opens_only_with_its_unlock_key(tmp_path: Path) -> None:
    ring = KeyRing.create(tmp_path / "keys.json", b"secret")

    assert sealed(KeyRing.open(tmp_path / "keys.json", b"secret")) == sealed(ring)
    for wrong in (None, b"", b"other"):
        with pytest.raises(ConfigurationError, match="node is locked, and needs a valid unlock key"):
            KeyRing.open(tmp_path / "keys.json", wrong)


def test_a_ring_can_be_unlocked_and_locked_with_another_key(tmp_path: Path) -> None:
    ring = KeyRing.create(tmp_path / "keys.json", b"secret")

    ring.lock(None)
    assert not KeyRing.open(tmp_path / "keys.json").is_locked
    ring.lock(b"new")

    assert sealed(KeyRing.open(tmp_path / "keys.json", b"new")) == sealed(ring)


def test_rotation_keeps_the_old_keys_until_they_are_let_go(tmp_path: Path) -> None:
    ring = KeyRing.create(tmp_path / "keys.json")

    assert ring.rotate() == ring.current == 2
    reopened = KeyRing.open(tmp_path / "keys.json")
    assert sealed(reopened, 1) != sealed(reopened, 2)
    ring.retain({2})

    assert KeyRing.open(tmp_path / "keys.json").file_key(1, SALT, b"test") is None


def test_what_could_not_be_written_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing.create(tmp_path / "keys.json")
    ring.rotate()

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("swarmcore.replication.keys.replace_file", full)
    for change in (ring.rotate, lambda: ring.lock(b"key"), lambda: ring.retain({2})):
        with pytest.raises(OSError, match="No space"):
            change()

    assert (ring.current, ring.is_locked) == (2, False)
    assert ring.file_key(1, SALT, b"test") is not None


def test_a_damaged_key_file_is_named_and_never_gives_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = sealed(KeyRing.create(path))
    whole = path.read_bytes()
    found = 0
    for position, byte in enumerate(whole):
        path.write_bytes(whole[:position] + bytes([byte ^ 1]) + whole[position + 1 :])

        try:
            assert sealed(KeyRing.open(path)) == keys
        except DamagedStateError as error:
            found += f"{str(path)!r} is damaged" in str(error)

    # Spaces, and the spare bits at the end of a base64 text, mean nothing.
    assert found > len(whole) * 0.9


def test_a_lock_and_a_rotation_at_once_lose_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one comes with a change of the cluster, the other with a snapshot, each on its own disk thread."""
    path = tmp_path / "keys.json"
    ring = KeyRing.create(path)
    at_the_disk, goes_on = threading.Event(), threading.Event()

    def slow_once(target: Path, data: bytes) -> None:
        if not at_the_disk.is_set():
            at_the_disk.set()
            goes_on.wait(5)
        replace_file(target, data)

    monkeypatch.setattr("swarmcore.replication.keys.replace_file", slow_once)
    locking = threading.Thread(target=ring.lock, args=(b"key",))
    locking.start()
    assert at_the_disk.wait(5)
    rotating = threading.Thread(target=ring.rotate)
    rotating.start()
    rotating.join(0.2)
    goes_on.set()
    locking.join()
    rotating.join()

    reopened = KeyRing.open(path, b"key")
    assert (reopened.current, reopened.is_locked) == (2, True)


def test_the_key_of_the_identity_outlives_every_rotation_and_is_locked_with_the_others(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring = KeyRing.create(path)
    before = ring.identity_keys
    ring.rotate()
    ring.retain({2})
    ring.lock(b"key")

    assert read_identity_keys(tmp_path, b"key") == before
    with pytest.raises(ConfigurationError, match="node is locked"):
        read_identity_keys(tmp_path, None)
    path.unlink()
    with pytest.raises(DamagedStateError, match="the file is missing"):
        read_identity_keys(tmp_path, b"key")
