"""A backup on disk: everything of a cluster, for whoever knows the passphrase and for nobody else.

    file   = header chunk*
    header = magic(8) format(u32) scrypt log2(N)(u8) r(u8) p(u8) salt(16) nonce prefix(7) check(16) crc32(u32)
    chunk  = length(u32) ciphertext          AES-256-GCM; nonce = prefix, chunk number(u32), 1 for the last(u8)

Each chunk is one packed `BackupPart`. The number in the nonce shows a chunk that is missing, doubled or moved; the last
one's mark shows a file that was cut; the header is authenticated with each. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from google.protobuf.message import DecodeError

from swarmcore.api.backup_pb2 import BackupHeader, BackupPart
from swarmcore.errors import ConfigurationError
from swarmcore.replication.durable import sync_folder, write_all

MAGIC = b"swarmbak"
FORMAT = 1
SCRYPT = (17, 8, 1)
"""log2(N), r and p: 128 MiB of memory and about half a second for each guess."""
MAX_SCRYPT = (20, 16, 4)
MAX_CHUNK_BYTES = 16 * 1024 * 1024
MAX_PART_BYTES = 64 * 1024 * 1024
MIN_PASSPHRASE = 8
MAX_PASSPHRASE = 4096

_HEADER = struct.Struct("<8sIBBB16s7s16s")
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CHECKSUM.size
_TAG_BYTES = 16


class BackupWriter:
    """One backup being written, mode 0600, beside its name. `finish` gives it that; `abandon` leaves no trace."""

    def __init__(self, path: Path, passphrase: bytes, *, scrypt: tuple[int, int, int] = SCRYPT) -> None:
        """Raises ConfigurationError where the file can't be made."""
        salt, self._prefix = os.urandom(16), os.urandom(7)
        self._cipher, check = _derive(passphrase, salt, scrypt)
        head = _HEADER.pack(MAGIC, FORMAT, *scrypt, salt, self._prefix, check)
        self._head = head + _CHECKSUM.pack(zlib.crc32(head))
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        self._number = 0
        self.size = 0
        self._descriptor = -1
        try:
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.fchmod(self._descriptor, 0o600)
            self._write(self._head)
        except OSError as error:
            self.abandon()
            raise _cannot_write(path, error) from None

    def add(self, part: BackupPart, *, is_last: bool = False) -> None:
        """Write one part. Raises ConfigurationError where the disk does not take it."""
        data = zlib.compress(part.SerializeToString(), 1)
        sealed = self._cipher.encrypt(_nonce(self._prefix, self._number, is_last), data, self._head)
        self._number += 1
        try:
            self._write(_LENGTH.pack(len(sealed)) + sealed)
        except OSError as error:
            raise _cannot_write(self.path, error) from None

    def finish(self) -> None:
        """Make it durable under its name, in the place of what stands there."""
        try:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.rename(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise _cannot_write(self.path, error) from None

    def abandon(self) -> None:
        """Remove what was written; does nothing after `finish`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data)
        self.size += len(data)


class BackupReader:
    """One backup: its header, then its pieces. Raises ConfigurationError where it can't be read or trusted."""

    def __init__(self, path: Path, passphrase: bytes) -> None:
        self.path = path
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise ConfigurationError(f"can't read the backup {str(path)!r}: {error.strerror}") from None
        try:
            self._open(passphrase)
            first = self._next()
            if first.WhichOneof("part") != "header":
                raise self._damaged(_HEADER_BYTES, "it does not begin with its description")
            self.header: BackupHeader = first.header
        except BaseException:
            self.close()
            raise

    def _open(self, passphrase: bytes) -> None:
        head = self._read(_HEADER_BYTES)
        if head[: len(MAGIC)] != MAGIC:
            raise ConfigurationError(f"{str(self.path)!r} is no backup of `swarmctl cluster backup`: name another file")
        if len(head) < _HEADER_BYTES:
            raise self._damaged(len(head), "it ends in its header")
        if _CHECKSUM.unpack_from(head, _HEADER.size)[0] != zlib.crc32(head[: _HEADER.size]):
            raise self._damaged(0, "its header does not match its checksum")
        _, format, log2_n, r, p, salt, self._prefix, check = _HEADER.unpack_from(head)
        if format != FORMAT:
            raise ConfigurationError(f"the backup {str(self.path)!r} has format {format}: a newer version reads it")
        # What a file asks for in memory and time is bounded before it is believed.
        if not all(1 <= asked <= most for asked, most in zip((log2_n, r, p), MAX_SCRYPT, strict=True)):
            raise self._damaged(12, "its header asks for more memory than any backup")
        self._cipher, found = _derive(passphrase, salt, (log2_n, r, p))
        if found != check:
            raise ConfigurationError(f"the passphrase is not that of the backup {str(self.path)!r}: give the right one")
        self._head = head
        self._at = _HEADER_BYTES
        self._number = 0
        self._is_over = False

    def pieces(self) -> Iterator[bytes]:
        """The pieces of the store, in order, to the end."""
        count = 0
        while True:
            at = self._at
            part = self._next()
            match part.WhichOneof("part"):
                case "piece":
                    count += 1
                    yield part.piece
                case "end" if part.end == count and self._is_over:
                    return
                case _:
                    raise self._damaged(at, "a part is out of order")

    def close(self) -> None:
        self._file.close()

    def _next(self) -> BackupPart:
        at = self._at
        length_bytes = self._read(_LENGTH.size)
        if len(length_bytes) < _LENGTH.size or self._is_over:
            raise self._damaged(at, "it is cut short")
        (length,) = _LENGTH.unpack(length_bytes)
        if not _TAG_BYTES < length <= MAX_CHUNK_BYTES:
            raise self._damaged(at, "a length is out of bounds")
        sealed = self._read(length)
        if len(sealed) < length:
            raise self._damaged(at, "it is cut short")
        self._is_over = not self._peek()
        try:
            data = self._cipher.decrypt(_nonce(self._prefix, self._number, self._is_over), sealed, self._head)
            unpacking = zlib.decompressobj()
            part = BackupPart.FromString(unpacking.decompress(data, MAX_PART_BYTES))
        except InvalidTag:
            what = "it was cut short after this" if self._is_over else "a part was changed, or is not in its place"
            raise self._damaged(at, what) from None
        except (zlib.error, DecodeError):
            raise self._damaged(at, "a part can't be unpacked") from None
        self._number += 1
        self._at = at + _LENGTH.size + length
        return part

    def _peek(self) -> bool:
        """Whether anything follows."""
        position = self._file.tell()
        more = bool(self._read(1))
        self._file.seek(position)
        return more

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            raise ConfigurationError(f"can't read the backup {str(self.path)!r}: {error.strerror}") from None

    def _damaged(self, offset: int, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"the backup {str(self.path)!r} is damaged at byte {offset} ({what}): use another one"
        )


def checked_passphrase(passphrase: bytes, source: str) -> bytes:
    """A passphrase that is none too short or too long. Raises ConfigurationError."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigurationError(f"{source}: a passphrase has at least {MIN_PASSPHRASE} characters")
    if len(passphrase) > MAX_PASSPHRASE:
        raise ConfigurationError(f"{source}: a passphrase has at most {MAX_PASSPHRASE} bytes")
    return passphrase


def read_passphrase(path: str) -> bytes:
    """The passphrase that is the first line of a file. Raises ConfigurationError."""
    try:
        with open(path, "rb") as file:
            line = file.readline(MAX_PASSPHRASE + 3)
    except OSError as error:
        raise ConfigurationError(f"can't read --passphrase-file {path!r}: {error.strerror}") from None
    return checked_passphrase(line.removesuffix(b"\n").removesuffix(b"\r"), f"--passphrase-file {path!r}")


def _derive(passphrase: bytes, salt: bytes, scrypt: tuple[int, int, int]) -> tuple[AESGCM, bytes]:
    """The cipher, and what a wrong passphrase is told by."""
    log2_n, r, p = scrypt
    secret = Scrypt(salt=salt, length=32, n=1 << log2_n, r=r, p=p).derive(passphrase)

    def key(purpose: bytes, length: int) -> bytes:
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=purpose).derive(secret)

    return AESGCM(key(b"backup", 32)), key(b"backup passphrase", 16)


def _nonce(prefix: bytes, number: int, is_last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes((is_last,))


def _cannot_write(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"can't write the backup {str(path)!r}: {error.strerror or error}")
