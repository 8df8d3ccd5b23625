"""What the front reads of a TLS hello: from real clients, in any pieces, and from anyone's garbage."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.node.client_hello import (
    MAX_HELLO_BYTES,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    ClientHello,
    HelloReader,
    NotTLSError,
    parse_client_hello,
)


def real_hello(name: str | None) -> bytes:
    """The first flight of OpenSSL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


HELLO = real_hello("Swarm-Manager")


def records(message: bytes, sizes: Sequence[int]) -> bytes:
    """`message` in handshake records of these sizes, the last as long as needed."""
    out = b""
    for size in (*sizes, max(1, len(message))):
        part, message = message[:size], message[size:]
        if part:
            out += b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
    return out


def read(pieces: Sequence[bytes]) -> ClientHello | None:
    reader = HelloReader()
    for piece in pieces:
        hello = reader.feed(piece)
        if hello is not None:
            return hello
    return None


def test_the_server_name_is_read_in_lower_case() -> None:
    assert read([HELLO]) == ClientHello("swarm-manager")


def test_a_hello_without_a_name_is_complete_too() -> None:
    assert read([real_hello(None)]) == ClientHello("")


@given(st.lists(st.integers(1, len(HELLO) - 1), max_size=6), st.lists(st.integers(1, 300), max_size=20))
def test_it_makes_no_difference_how_the_hello_is_cut(cuts: list[int], sizes: list[int]) -> None:
    data = records(HELLO[5:], sizes)
    marks = [0, *sorted(cut for cut in set(cuts) if cut < len(data)), len(data)]

    pieces = [data[start:end] for start, end in pairwise(marks)]

    assert read(pieces) == ClientHello("swarm-manager")


@given(st.integers(0, len(HELLO) - 1))
def test_a_part_of_a_hello_is_waited_for(length: int) -> None:
    assert read([HELLO[:length]]) is None


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_is_waited_for_or_refused_and_nothing_else(pieces: list[bytes]) -> None:
    with contextlib.suppress(NotTLSError):
        assert read(pieces) is None


@given(st.integers(0, len(HELLO) - 1), st.integers(0, 255))
def test_a_hello_with_one_wrong_byte_is_read_or_refused(at: int, byte: int) -> None:
    broken = bytearray(HELLO)
    broken[at] = byte

    with contextlib.suppress(NotTLSError):
        read([bytes(broken)])


@given(st.binary(max_size=400))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(NotTLSError):
        parse_client_hello(body)


@given(st.binary(max_size=120))
def test_any_extensions_are_read_or_refused(extensions: bytes) -> None:
    body = bytes(34) + b"\0" + b"\0\2\x13\x01" + b"\1\0" + len(extensions).to_bytes(2, "big") + extensions

    with contextlib.suppress(NotTLSError):
        parse_client_hello(body)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "no TLS handshake record"),
        (b"\x16\x02\x01\x00\x10", "no TLS handshake record"),
        (b"\x16\x03\x01\x00\x00", "no TLS handshake record"),
        (b"\x16\x03\x01" + (MAX_RECORD_BYTES + 1).to_bytes(2, "big"), "no TLS handshake record"),
        (b"\x16\x03\x01\x00\x10\x02", "no ClientHello"),
        (b"\x16\x03\x01\x00\x10\x01" + (MAX_HELLO_BYTES + 1).to_bytes(3, "big"), "the ClientHello is too long"),
        (records(b"\x01\x00\x20\x00" + bytes(MAX_RECORDS), [1] * 99), "too many records"),
    ],
)
def test_what_can_be_no_hello_is_refused_at_once(data: bytes, why: str) -> None:
    with pytest.raises(NotTLSError, match=why):
        read([data])


def test_two_server_names_are_refused() -> None:
    name = b"\0\0\0\x06\0\x04\0\0\x01a"
    body = bytes(34) + b"\0" + b"\0\2\x13\x01" + b"\1\0" + len(name * 2).to_bytes(2, "big") + name * 2

    with pytest.raises(NotTLSError, match="two server names"):
        parse_client_hello(body)
