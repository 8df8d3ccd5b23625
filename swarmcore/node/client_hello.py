"""Reads the server name out of the first bytes of a TLS connection (RFC 8446 §4.1.2, RFC 6066 §3). Pure.

Bytes come from anyone: nothing is believed before its length is checked, and no more than a bound is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

HANDSHAKE_RECORD = 0x16
CLIENT_HELLO = 1
SERVER_NAME_EXTENSION = 0
HOST_NAME = 0
RECORD_HEADER = 5
MAX_RECORD_BYTES = 16_384
MAX_HELLO_BYTES = 16_384
MAX_RECORDS = 64


class NotTLSError(Exception):
    """The bytes are no ClientHello."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What the caller asked for."""

    server_name: str
    """In lower case; empty when it named none."""


class HelloReader:
    """Takes the bytes as they come, in pieces of any size, and says when the ClientHello is complete."""

    def __init__(self) -> None:
        self._record = bytearray()
        self._message = bytearray()
        self._records = 0

    def feed(self, data: bytes) -> ClientHello | None:
        """The hello once it is complete, None before. Raises NotTLSError; then no more may be fed."""
        self._record += data
        while len(self._record) >= RECORD_HEADER:
            kind, major = self._record[0], self._record[1]
            length = int.from_bytes(self._record[3:RECORD_HEADER], "big")
            if kind != HANDSHAKE_RECORD or major != 3 or not 0 < length <= MAX_RECORD_BYTES:
                raise NotTLSError("no TLS handshake record")
            end = RECORD_HEADER + length
            if len(self._record) < end:
                # A hello that begins wrongly is refused before the rest of its record is waited for.
                self._check_start(self._message + self._record[RECORD_HEADER : RECORD_HEADER + 4])
                return None
            self._records += 1
            if self._records > MAX_RECORDS:
                raise NotTLSError("too many records")
            self._message += self._record[RECORD_HEADER:end]
            del self._record[:end]
            length = self._check_start(self._message)
            if 0 <= length <= len(self._message) - 4:
                return parse_client_hello(bytes(self._message[4 : 4 + length]))
        if self._record and self._record[0] != HANDSHAKE_RECORD:
            raise NotTLSError("no TLS handshake record")
        return None

    @staticmethod
    def _check_start(message: bytearray) -> int:
        """Length of the hello, -1 while it is not known yet."""
        if message and message[0] != CLIENT_HELLO:
            raise NotTLSError("no ClientHello")
        if len(message) < 4:
            return -1
        length = int.from_bytes(message[1:4], "big")
        if length > MAX_HELLO_BYTES:
            raise NotTLSError("the ClientHello is too long")
        return length


class _Cursor:
    """Takes bytes from the front; raises NotTLSError instead of reading past the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise NotTLSError("the ClientHello is cut short")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def block(self, width: int) -> _Cursor:
        """The bytes behind a length of `width` bytes."""
        return _Cursor(self.take(self.number(width)))

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)


def parse_client_hello(body: bytes) -> ClientHello:
    """Read the body of a ClientHello; raises NotTLSError."""
    cursor = _Cursor(body)
    cursor.take(2 + 32)
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        cursor.block(width)
    if cursor.is_at_end:
        return ClientHello("")
    extensions = cursor.block(2)
    name: str | None = None
    while not extensions.is_at_end:
        kind = extensions.number(2)
        body_of = extensions.block(2)
        if kind == SERVER_NAME_EXTENSION:
            if name is not None:
                raise NotTLSError("two server names")
            name = _host_name(body_of)
    return ClientHello(name or "")


def _host_name(extension: _Cursor) -> str:
    names = extension.block(2)
    while not names.is_at_end:
        kind = names.number(1)
        value = names.take(names.number(2))
        if kind == HOST_NAME:
            return value.decode("ascii", "replace").lower()
    return ""
