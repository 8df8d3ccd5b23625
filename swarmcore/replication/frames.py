"""What log segments and snapshots are made of: a header that names the key, then sealed frames.

    file   = header frame*
    header = magic(8) format(u32) key number(u32) number(u64) salt(32) crc32(u32)
    frame  = mark(4) length(u32) crc32 of body(u32) crc32 of the 12 bytes before, seeded with the offset(u32) body
    body   = nonce(12) ciphertext tag(16)                       AES-256-GCM; the frame's offset is authenticated too

The checksums tell an accident of the disk from a wrong key, without any key. One frame is what one `fdatasync` makes
durable, so a crash can leave at most the last frame of a file incomplete.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from swarmcore.replication.damage import damaged
from swarmcore.replication.keys import NONCE_BYTES, KeyRing

FORMAT = 1
_MARK = b"\xf5frm"
_HEADER = struct.Struct("<8sIIQ32s")
_CHECKSUM = struct.Struct("<I")
_FRAME = struct.Struct("<4sII")
_OFFSET = struct.Struct("<Q")
_TAG_BYTES = 16
_SECTOR_BYTES = 512
HEADER_BYTES = _HEADER.size + _CHECKSUM.size
FRAME_BYTES = _FRAME.size + _CHECKSUM.size
OVERHEAD = FRAME_BYTES + NONCE_BYTES + _TAG_BYTES
"""Bytes that a frame adds to its payload."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: what it begins with, and what its key is derived for."""

    magic: bytes
    purpose: bytes


SEGMENT = Kind(b"swarmlog", b"raft log segment")
SNAPSHOT = Kind(b"swarmsnp", b"raft snapshot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of a file, and the cipher that follows from it. `number` is a sequence or an index."""

    kind: Kind
    key: int
    number: int
    salt: bytes
    cipher: AESGCM

    @classmethod
    def fresh(cls, kind: Kind, number: int, keys: KeyRing) -> Header:
        """The header of a new file under the ring's current key."""
        salt = os.urandom(32)
        cipher = keys.file_key(keys.current, salt, kind.purpose)
        assert cipher is not None
        return cls(kind=kind, key=keys.current, number=number, salt=salt, cipher=cipher)

    def encode(self) -> bytes:
        data = _HEADER.pack(self.kind.magic, FORMAT, self.key, self.number, self.salt)
        return data + _CHECKSUM.pack(zlib.crc32(data))

    @classmethod
    def decode(cls, path: Path, data: bytes, kind: Kind, keys: KeyRing) -> Header:
        """Read the header of `path`, whose content begins with `data`; raises DamagedStateError."""
        if len(data) < HEADER_BYTES:
            raise damaged(path, 0, "the header is cut short")
        magic, format, key, number, salt = _HEADER.unpack_from(data)
        (checksum,) = _CHECKSUM.unpack_from(data, _HEADER.size)
        if magic != kind.magic or checksum != zlib.crc32(data[: _HEADER.size]):
            raise damaged(path, 0, "the header does not match its checksum")
        if format != FORMAT:
            raise damaged(path, 8, f"format {format} is not known to this version")
        cipher = keys.file_key(key, salt, kind.purpose)
        if cipher is None:
            raise damaged(path, 12, f"data key {key} is not in the key file")
        return cls(kind=kind, key=key, number=number, salt=salt, cipher=cipher)


def seal(cipher: AESGCM, offset: int, payload: bytes) -> bytes:
    """The frame that holds `payload` and stands at `offset` of its file."""
    nonce = os.urandom(NONCE_BYTES)
    body = nonce + cipher.encrypt(nonce, payload, _OFFSET.pack(offset))
    head = _FRAME.pack(_MARK, len(body), zlib.crc32(body))
    return b"".join((head, _CHECKSUM.pack(_head_checksum(head, offset)), body))


def _head_checksum(head: bytes, offset: int) -> int:
    return zlib.crc32(head, offset & 0xFFFFFFFF)


def body_at(data: bytes, offset: int) -> memoryview | None:
    """The body of the frame at `offset`, or None when what is there is no whole, intact frame."""
    view = memoryview(data)
    return body_in(lambda length, at: view[at : at + length], len(data), offset)


def body_in(read: Callable[[int, int], memoryview], size: int, offset: int) -> memoryview | None:
    """The same of a file of `size` bytes, of which `read` gives so many from an offset on, or fewer at its end."""
    if size < offset + FRAME_BYTES:
        return None
    head = bytes(read(FRAME_BYTES, offset))
    if len(head) < FRAME_BYTES:
        return None
    mark, length, checksum = _FRAME.unpack_from(head)
    (head_checksum,) = _CHECKSUM.unpack_from(head, _FRAME.size)
    if mark != _MARK or head_checksum != _head_checksum(head[: _FRAME.size], offset):
        return None
    if length < NONCE_BYTES + _TAG_BYTES or size < offset + FRAME_BYTES + length:
        return None
    body = read(length, offset + FRAME_BYTES)
    return body if len(body) == length and zlib.crc32(body) == checksum else None


def unseal(path: Path, cipher: AESGCM, offset: int, body: memoryview) -> bytes:
    """The payload of an intact frame; raises DamagedStateError when it was not sealed here, with this key."""
    try:
        return cipher.decrypt(bytes(body[:NONCE_BYTES]), bytes(body[NONCE_BYTES:]), _OFFSET.pack(offset))
    except InvalidTag:
        raise damaged(path, offset, "the frame can't be decrypted with its key") from None


def intact_frames(path: Path, data: bytes, cipher: AESGCM) -> Iterator[tuple[int, bytes, int]]:
    """Offset, payload and end of each frame from the first on, up to the first place without an intact frame."""
    return frames_by(path, lambda offset: body_at(data, offset), cipher)


def frames_by(
    path: Path, body_of: Callable[[int], memoryview | None], cipher: AESGCM
) -> Iterator[tuple[int, bytes, int]]:
    """The same with `body_of`, which gives the body of the frame at an offset."""
    offset = HEADER_BYTES
    while (body := body_of(offset)) is not None:
        end = offset + FRAME_BYTES + len(body)
        yield offset, unseal(path, cipher, offset, body), end
        offset = end


def is_torn(data: bytes, offset: int) -> bool:
    """Whether what is at `offset`, to the end, can be a write that a crash cut short, and is no damage.

    Such a write is the last, and either the file ends before it does, or sectors that never reached the disk read as
    zeros: sealed data holds no sector of zeros. Anything else was whole once, and perhaps acknowledged.
    """
    if next_frame(data, offset) is not None:
        return False
    if len(data) < offset + FRAME_BYTES:
        return True
    mark, length, _ = _FRAME.unpack_from(data, offset)
    (head_checksum,) = _CHECKSUM.unpack_from(data, offset + _FRAME.size)
    has_head = mark == _MARK and head_checksum == _head_checksum(data[offset : offset + _FRAME.size], offset)
    if has_head and offset + FRAME_BYTES + length > len(data):
        return True
    return any(not any(sector) for sector in _sectors(data, offset))


def _sectors(data: bytes, offset: int) -> Iterator[memoryview]:
    """What follows `offset`, cut where the sectors of the file end."""
    view = memoryview(data)
    while offset < len(data):
        end = offset - offset % _SECTOR_BYTES + _SECTOR_BYTES
        yield view[offset:end]
        offset = end


def next_frame(data: bytes, offset: int) -> int | None:
    """Where the next intact frame behind `offset` begins; None where there is none."""
    at = data.find(_MARK, offset + 1)
    while at != -1:
        if body_at(data, at) is not None:
            return at
        at = data.find(_MARK, at + 1)
    return None
