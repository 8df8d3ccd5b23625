"""The keys that data at rest is encrypted with, and the unlock key that wraps them.

One small file holds every data key that some file still needs, by number. A file written under a key names its number,
so a rotation is: add a key, write everything new under it, drop the old one when the last file under it is gone.
Beside them it holds the key for the manager's private key, so locking changes this file alone. Which keys ever stood in
it in the open is written down too: once it is locked they are replaced, whatever interrupts that.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarmcore.errors import ConfigurationError
from swarmcore.replication.damage import damaged
from swarmcore.replication.durable import replace_file

KEY_BYTES = 32
NONCE_BYTES = 12
LOCKED = "node is locked, and needs a valid unlock key: give it with --unlock-key-file or SWARM_UNLOCK_KEY"
WRONG_KEY = (
    "node is locked, and needs a valid unlock key: the one that was given does not open it; where the key was rotated "
    "while this manager was away, the one before does"
)
_FORMAT = 1
_IDENTITY = 1 << 31
"""Numbers from here on are those of keys that seal the manager's private key; data keys count from 1."""


def derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """A key of its own for one file or one use: no two files share a key, so random nonces can't run out."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(key)


class KeyRing:
    """The keys of one manager, kept in `path` (mode 0600).

    Changed from the threads of both disks, so each change with its file is one step.
    """

    def __init__(
        self, path: Path, keys: Mapping[int, bytes], unlock_key: bytes | None, exposed: Collection[int] = ()
    ) -> None:
        self._path = path
        self._keys = dict(keys)
        self._unlock_key = unlock_key
        self._exposed = frozenset(exposed)
        self._changing = threading.Lock()

    @classmethod
    def create(cls, path: Path, unlock_key: bytes | None = None, *, is_identity_exposed: bool = False) -> KeyRing:
        """Make a ring with fresh keys, on disk before it is returned.

        `is_identity_exposed`: the private key that it is for has stood on this disk in the open.
        """
        keys = {1: os.urandom(KEY_BYTES), _IDENTITY: os.urandom(KEY_BYTES)}
        ring = cls(path, keys, unlock_key, (_IDENTITY,) if is_identity_exposed else ())
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
            locked = bool(file["locked"])
            exposed = frozenset(int(number) for number in file["exposed"])
            intact = file["format"] == _FORMAT and _checksum(salt, body, exposed) == file["checksum"]
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise damaged(path, 0, "it can't be read") from None
        if not intact:
            raise damaged(path, 0, "it can't be read")
        if locked:
            if unlock_key is None:
                raise ConfigurationError(LOCKED)
            try:
                body = AESGCM(derive(unlock_key, salt, b"unlock")).decrypt(salt[:NONCE_BYTES], body, None)
            except InvalidTag:
                raise ConfigurationError(WRONG_KEY) from None
        size = 4 + KEY_BYTES
        if not body or len(body) % size:
            raise damaged(path, 0, "it can't be read")
        keys = {int.from_bytes(body[at : at + 4], "big"): body[at + 4 : at + size] for at in range(0, len(body), size)}
        if not any(number < _IDENTITY for number in keys) or max(keys) < _IDENTITY:
            raise damaged(path, 0, "it can't be read")
        return cls(path, keys, unlock_key if locked else None, exposed)

    @property
    def identity_keys(self) -> list[bytes]:
        """What the manager's private key may be sealed with, the newest first."""
        return [self._keys[number] for number in sorted(self._keys, reverse=True) if number >= _IDENTITY]

    @property
    def current(self) -> int:
        """Number of the key that new files are written under."""
        return max(number for number in self._keys if number < _IDENTITY)

    @property
    def is_locked(self) -> bool:
        """Whether the file on disk can be read only with the unlock key."""
        return self._unlock_key is not None

    def is_locked_with(self, unlock_key: bytes | None) -> bool:
        """Whether this very key opens the file on disk; None: whether it opens without any."""
        return self._unlock_key == unlock_key

    @property
    def is_data_exposed(self) -> bool:
        """Whether it is locked, and yet new files are written under a key that stood on the disk in the open."""
        return self.is_locked and self.current in self._exposed

    @property
    def is_identity_exposed(self) -> bool:
        """Whether it is locked, and yet what the private key was sealed with stood on the disk in the open."""
        return self.is_locked and any(number in self._exposed for number in self._keys if number >= _IDENTITY)

    def file_key(self, number: int, salt: bytes, purpose: bytes) -> AESGCM | None:
        """The cipher of one file, or None when the ring has no key of that number."""
        key = self._keys.get(number)
        return None if key is None else AESGCM(derive(key, salt, purpose))

    def lock(self, unlock_key: bytes | None) -> None:
        """Wrap the ring with another unlock key, or with none. Durable when this returns."""
        with self._changing:
            self._change(self._keys, unlock_key)

    def rotate(self) -> int:
        """Add a fresh data key, which becomes the current one. Durable when this returns its number."""
        with self._changing:
            number = self.current + 1
            self._change({**self._keys, number: os.urandom(KEY_BYTES)}, self._unlock_key)
            return number

    def retain(self, numbers: Collection[int]) -> None:
        """Forget every data key but `numbers` and the current one."""
        with self._changing:
            self._keep(lambda number: number in numbers or number == self.current or number >= _IDENTITY)

    def fresh_identity(self) -> bytes:
        """What to seal the private key with from now on: fresh where the newest stood in the open. Durable."""
        with self._changing:
            newest = max(self._keys)
            if newest in self._exposed:
                newest += 1
                self._change({**self._keys, newest: os.urandom(KEY_BYTES)}, self._unlock_key)
            return self._keys[newest]

    def retain_identity(self, key: bytes) -> None:
        """Forget what the private key was sealed with before `key`."""
        with self._changing:
            self._keep(lambda number: number < _IDENTITY or self._keys[number] == key)

    def _keep(self, is_needed: Callable[[int], bool]) -> None:
        kept = {number: key for number, key in self._keys.items() if is_needed(number)}
        if len(kept) < len(self._keys):
            self._change(kept, self._unlock_key)

    def _change(self, keys: Mapping[int, bytes], unlock_key: bytes | None) -> None:
        before = self._keys, self._unlock_key, self._exposed
        self._keys, self._unlock_key = dict(keys), unlock_key
        try:
            self._save()
        except OSError:
            self._keys, self._unlock_key, self._exposed = before
            raise

    def _save(self) -> None:
        body = b"".join(number.to_bytes(4, "big") + key for number, key in sorted(self._keys.items()))
        salt = os.urandom(KEY_BYTES)
        if self._unlock_key is not None:
            # The salt is fresh for each write, so this wrapping key seals one message only.
            body = AESGCM(derive(self._unlock_key, salt, b"unlock")).encrypt(salt[:NONCE_BYTES], body, None)
            self._exposed &= self._keys.keys()
        else:
            self._exposed = frozenset(self._keys)
        file = {
            "format": _FORMAT,
            "locked": self._unlock_key is not None,
            "exposed": sorted(self._exposed),
            "salt": base64.b64encode(salt).decode(),
            "keys": base64.b64encode(body).decode(),
            "checksum": _checksum(salt, body, self._exposed),
        }
        replace_file(self._path, json.dumps(file, indent=1).encode() + b"\n")


def _checksum(salt: bytes, body: bytes, exposed: frozenset[int]) -> int:
    return zlib.crc32(salt + body + repr(sorted(exposed)).encode())
