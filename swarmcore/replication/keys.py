"""The keys that data at rest is encrypted with, and the unlock key that wraps them.

One small file holds every data key that some file still needs, by number. A file written under a key names its number,
so a rotation is: add a key, write everything new under it, drop the old one when the last file under it is gone.
Beside them it holds one key that never changes, for the manager's private key: locking changes this file alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.replication.durable import replace_file

KEY_BYTES = 32
NONCE_BYTES = 12
LOCKED = "node is locked, and needs a valid unlock key: start it with --unlock-key"
_FORMAT = 1
_IDENTITY = 0
"""Number of the key that seals the manager's private key; data keys count from 1."""


def derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """A key of its own for one file or one use: no two files share a key, so random nonces can't run out."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(key)


class KeyRing:
    """The data keys of one manager, kept in `path` (mode 0600).

    Changed from the threads of both disks, so each change with its file is one step.
    """

    def __init__(self, path: Path, keys: Mapping[int, bytes], unlock_key: bytes | None) -> None:
        self._path = path
        self._keys = dict(keys)
        self._unlock_key = unlock_key
        self._changing = threading.Lock()

    @classmethod
    def create(cls, path: Path, unlock_key: bytes | None = None) -> KeyRing:
        """Make a ring with one fresh key, on disk before it is returned."""
        ring = cls(path, {_IDENTITY: os.urandom(KEY_BYTES), 1: os.urandom(KEY_BYTES)}, unlock_key)
        ring._save()
        return ring

    @classmethod
    def open(cls, path: Path, unlock_key: bytes | None = None) -> KeyRing:
        """Read the ring. A ring that is not locked opens whatever the unlock key, and stays unlocked.

        Raises ConfigurationError when it is locked and `unlock_key` is not the one, DamagedStateError when the file
        can't be read as a ring.
        """
        try:
            file = json.loads(path.read_bytes())
            body = base64.b64decode(file["keys"], validate=True)
            salt = base64.b64decode(file["salt"], validate=True)
            intact = file["format"] == _FORMAT and zlib.crc32(salt + body) == file["checksum"]
            locked = bool(file["locked"])
        except (ValueError, KeyError, TypeError, binascii.Error):
            intact, locked, body, salt = False, False, b"", b""
        if not intact:
            raise _damaged(path)
        if locked:
            if unlock_key is None:
                raise ConfigurationError(LOCKED)
            try:
                body = AESGCM(derive(unlock_key, salt, b"unlock")).decrypt(salt[:NONCE_BYTES], body, None)
            except InvalidTag:
                raise ConfigurationError(LOCKED) from None
        size = 4 + KEY_BYTES
        if not body or len(body) % size:
            raise _damaged(path)
        keys = {int.from_bytes(body[at : at + 4], "big"): body[at + 4 : at + size] for at in range(0, len(body), size)}
        if _IDENTITY not in keys or len(keys) < 2:
            raise _damaged(path)
        return cls(path, keys, unlock_key if locked else None)

    @property
    def identity_key(self) -> bytes:
        """What the manager's private key is sealed with."""
        return self._keys[_IDENTITY]

    @property
    def current(self) -> int:
        """Number of the key that new files are written under."""
        return max(self._keys)

    @property
    def is_locked(self) -> bool:
        """Whether the file on disk can be read only with the unlock key."""
        return self._unlock_key is not None

    def is_locked_with(self, unlock_key: bytes | None) -> bool:
        """Whether this very key opens the file on disk; None: whether it opens without any."""
        return self._unlock_key == unlock_key

    def file_key(self, number: int, salt: bytes, purpose: bytes) -> AESGCM | None:
        """The cipher of one file, or None when the ring has no key of that number."""
        key = self._keys.get(number)
        return None if key is None else AESGCM(derive(key, salt, purpose))

    def lock(self, unlock_key: bytes | None) -> None:
        """Wrap the ring with another unlock key, or with none. Durable when this returns."""
        with self._changing:
            before, self._unlock_key = self._unlock_key, unlock_key
            try:
                self._save()
            except OSError:
                self._unlock_key = before
                raise

    def rotate(self) -> int:
        """Add a fresh key, which becomes the current one. Durable when this returns its number."""
        with self._changing:
            before = self._keys
            number = self.current + 1
            self._keys = {**before, number: os.urandom(KEY_BYTES)}
            try:
                self._save()
            except OSError:
                self._keys = before
                raise
            return number

    def retain(self, numbers: Collection[int]) -> None:
        """Forget every key but `numbers` and the current one."""
        with self._changing:
            before = self._keys
            needed = {*numbers, _IDENTITY, self.current}
            kept = {number: key for number, key in before.items() if number in needed}
            if len(kept) == len(before):
                return
            self._keys = kept
            try:
                self._save()
            except OSError:
                self._keys = before
                raise

    def _save(self) -> None:
        body = b"".join(number.to_bytes(4, "big") + key for number, key in sorted(self._keys.items()))
        salt = os.urandom(KEY_BYTES)
        if self._unlock_key is not None:
            # The salt is fresh for each write, so this wrapping key seals one message only.
            body = AESGCM(derive(self._unlock_key, salt, b"unlock")).encrypt(salt[:NONCE_BYTES], body, None)
        file = {
            "format": _FORMAT,
            "locked": self._unlock_key is not None,
            "salt": base64.b64encode(salt).decode(),
            "keys": base64.b64encode(body).decode(),
            "checksum": zlib.crc32(salt + body),
        }
        replace_file(self._path, json.dumps(file, indent=1).encode() + b"\n")


def _damaged(path: Path) -> DamagedStateError:
    return DamagedStateError(
        f"the key file {str(path)!r} is damaged at byte 0: restore the state directory from a backup, "
        "or remove this manager and join it again"
    )
