"""gRPC calls on a bare HTTP/2 connection: just enough for the simulated workers, at a fraction of a channel's cost.

A thousand workers in one process must not be what is measured. So requests are bytes with headers encoded once, and
answers are handed to a callback. Flow control is a check: receive windows are opened wide, and what a worker sends
fits in the window that the manager grants. Connections are TLS, verified by the caller's context.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, PADDED, END_HEADERS = 1, 1, 8, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = (1 << 31) - 1
MAX_FRAME = 16_384

OnMessage = Callable[[bytes], None]
OnEnd = Callable[[str], None]
"""Called once when a call is over, with what went wrong or nothing."""


class CallError(Exception):
    """A call was refused or cut off."""


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(value: str) -> bytes:
    raw = value.encode()
    assert len(raw) < 127
    return bytes((len(raw),)) + raw


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC by its path, and the header block of a call of it."""

    path: str
    headers: bytes


def method(path: str) -> Method:
    """Encode the headers once (HPACK, nothing indexed, so that they can be sent on every connection)."""
    headers = (
        b"\x83\x87"  # :method POST, :scheme https
        + (b"\x04" + _text(path))
        + (b"\x01" + _text("swarm-manager"))
        + (b"\x0f\x10" + _text("application/grpc"))
        + (b"\x00" + _text("te") + _text("trailers"))
    )
    return Method(path, headers)


@dataclass(slots=True)
class _Call:
    on_message: OnMessage
    on_end: OnEnd
    buffer: bytearray = field(default_factory=bytearray)


class Connection(asyncio.Protocol):
    """One HTTP/2 connection with any number of calls under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._credit = 65_535
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = (2).to_bytes(2, "big") + bytes(4) + (4).to_bytes(2, "big") + WINDOW.to_bytes(4, "big")
        transport.write(
            PREFACE
            + _frame(SETTINGS, 0, 0, settings)
            + _frame(WINDOW_UPDATE, 0, 0, (WINDOW - 65_535).to_bytes(4, "big"))
        )

    def call(self, method: Method, message: bytes, on_message: OnMessage, on_end: OnEnd) -> None:
        """Send one request; each message of the answer comes to `on_message`."""
        if self._transport is None or self.closed:
            on_end("the connection is closed")
            return
        stream = self._next
        self._next += 2
        self._calls[stream] = _Call(on_message, on_end)
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._credit -= len(body)
        if self._credit < 0:
            raise CallError("more was sent than the manager has asked for: a worker needs flow control for this")
        parts = [_frame(HEADERS, END_HEADERS, stream, method.headers)]
        for start in range(0, len(body), MAX_FRAME):
            chunk = body[start : start + MAX_FRAME]
            last = start + MAX_FRAME >= len(body)
            parts.append(_frame(DATA, END_STREAM if last else 0, stream, chunk))
        self._transport.write(b"".join(parts))

    async def unary(self, method: Method, message: bytes) -> bytes:
        """One request, one answer."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_message(answer: bytes) -> None:
            if not done.done():
                done.set_result(answer)

        def on_end(error: str) -> None:
            if not done.done():
                done.set_exception(CallError(error or "the call was refused"))

        self.call(method, message, on_message, on_end)
        return await done

    def close(self) -> None:
        """Cut the connection; calls end."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.on_end(f"the connection is lost: {exc or 'closed by the manager'}")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 9:
            size = int.from_bytes(buffer[start : start + 3], "big")
            if len(buffer) - start < 9 + size:
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big")
            payload = bytes(buffer[start + 9 : start + 9 + size])
            start += 9 + size
            self._on_frame(kind, flags, stream, payload)
        del buffer[:start]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            call = self._calls.get(stream)
            if call is not None:
                self._on_data(call, payload)
                if flags & END_STREAM:
                    self._end(stream, "")
        elif kind == HEADERS:
            if flags & END_STREAM:
                self._end(stream, "")
        elif kind == RST_STREAM:
            self._end(stream, f"the stream was reset with code {int.from_bytes(payload, 'big')}")
        elif kind == WINDOW_UPDATE:
            if stream == 0:
                self._credit += int.from_bytes(payload, "big")
        elif kind in (SETTINGS, PING):
            if not flags & ACK and self._transport is not None:
                self._transport.write(_frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GOAWAY and self._transport is not None:
            self._transport.close()

    @staticmethod
    def _on_data(call: _Call, payload: bytes) -> None:
        buffer = call.buffer
        buffer += payload
        while len(buffer) >= 5:
            size = int.from_bytes(buffer[1:5], "big")
            if len(buffer) < 5 + size:
                return
            message = bytes(buffer[5 : 5 + size])
            del buffer[: 5 + size]
            call.on_message(message)

    def _end(self, stream: int, error: str) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            call.on_end(error)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a caller trusts, and who it is; certificate and key are PEM, or empty before there are any."""

    root: bytes
    certificate: bytes = b""
    key: bytes = b""


async def connect(host: str, port: int, identity: Identity, server_name: str) -> Connection:
    """A verified connection; `server_name` is named in the TLS hello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.root.decode())
    if identity.certificate:
        with tempfile.NamedTemporaryFile(prefix="bench-") as file:
            file.write(identity.certificate + b"\n" + identity.key)
            file.flush()
            context.load_cert_chain(file.name)
    return await open_connection(host, port, context, server_name)


async def connect_unverified(host: str, port: int) -> Connection:
    """A connection to whoever answers, without a server name: how a node asks for the root certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return await open_connection(host, port, context, "")


async def open_connection(host: str, port: int, context: ssl.SSLContext, server_name: str) -> Connection:
    context.set_alpn_protocols(["h2"])
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, host, port, ssl=context, server_hostname=server_name
    )
    return connection
