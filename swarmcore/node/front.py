"""The front of a port: reads a connection's first bytes, then splices it to the listener that is meant.

Used twice: for the one port (by the TLS server name, architecture §5) and for the control socket (by the first byte).
Never decrypts anything, and believes nothing: every listener behind it checks its callers by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from swarmcore.node.admission import Admission
from swarmcore.node.client_hello import HANDSHAKE_RECORD, HelloReader, NotTLSError

log = logging.getLogger("swarmcore.node")

HELLO_SECONDS = 10.0
CONNECT_SECONDS = 5.0
LINGER_SECONDS = 10.0
BACKLOG = 1024
ACCEPTED_AT_ONCE = 64
"""Connections taken before the first of them is counted: each is a file that the process must have to spare."""
BUFFER_BYTES = 256 * 1024
USER_TIMEOUT_MS = 60_000
CONNECT_RETRY_SECONDS = 0.01


class Chooser(Protocol):
    """Decides where one connection goes."""

    def feed(self, data: bytes) -> Path | None:
        """The socket of the listener, once that is known. Raises NotTLSError for what goes nowhere."""
        ...


class ByServerName:
    """`names` to their listener, every other name and none to `otherwise`."""

    def __init__(self, names: dict[str, Path], otherwise: Path) -> None:
        self._names = names
        self._otherwise = otherwise
        self._reader = HelloReader()

    def feed(self, data: bytes) -> Path | None:
        hello = self._reader.feed(data)
        return None if hello is None else self._names.get(hello.server_name, self._otherwise)


class ByFirstByte:
    """A TLS hello to `tls`, everything else to `plaintext`."""

    def __init__(self, tls: Path, plaintext: Path) -> None:
        self._tls = tls
        self._plaintext = plaintext

    def feed(self, data: bytes) -> Path | None:
        return self._tls if data[0] == HANDSHAKE_RECORD else self._plaintext


class Front:
    """All connections of one port or socket."""

    def __init__(
        self,
        choose: Callable[[], Chooser],
        *,
        admission: Admission | None = None,
        hello_seconds: float = HELLO_SECONDS,
    ) -> None:
        self._choose = choose
        self._admission = admission or Admission()
        self._hello_seconds = hello_seconds
        self._server: asyncio.Server | None = None
        self._connections: set[_Caller] = set()
        self._silent: dict[_Caller, None] = {}
        """Those that have not said where to, in order."""
        self._addresses: dict[str, str] = {}
        """Remote address by the name of the front's own end of the inner connection."""

    async def listen(self, listening: socket.socket) -> None:
        """Serve connections of a socket that is bound; it belongs to the front from now on."""
        loop = asyncio.get_running_loop()
        make = self._new_caller
        if listening.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(make, sock=listening, backlog=ACCEPTED_AT_ONCE)
        else:
            self._server = await loop.create_server(make, sock=listening, backlog=ACCEPTED_AT_ONCE)
        # asyncio takes one number for both: how many wait in the kernel is another matter.
        listening.listen(BACKLOG)

    def remote_address(self, peer: str) -> str:
        """The IP address behind a connection, by the name that gRPC has for its peer; empty when it is gone."""
        return self._addresses.get(peer, "")

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def stop_listening(self) -> None:
        """Take no new connections."""
        if self._server is not None:
            self._server.close()

    async def aclose(self) -> None:
        """Close everything at once."""
        self.stop_listening()
        for caller in list(self._connections):
            caller.abort()
        # `connection_lost` of both ends, which closes the sockets, comes with the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)

    def _new_caller(self) -> _Caller:
        return _Caller(self, self._choose(), self._hello_seconds)

    def _enter(self, caller: _Caller) -> bool:
        """Take a connection in; False where there are too many."""
        if not self._admission.enter(caller.address):
            return False
        if len(self._silent) >= self._admission.silent:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.abort()
        self._connections.add(caller)
        self._silent[caller] = None
        return True

    def _enter_target(self, caller: _Caller, target: Path) -> bool:
        """Let a connection go on to a listener; False where that one has too many."""
        if not self._admission.enter_target(target, caller.address):
            return False
        self._silent.pop(caller, None)
        caller.target = target
        return True

    def _forget(self, caller: _Caller) -> None:
        if caller in self._connections:
            self._connections.discard(caller)
            self._silent.pop(caller, None)
            self._admission.leave(caller.address, caller.target)

    def _remember(self, name: str, address: str) -> None:
        self._addresses[name] = address

    def _forget_name(self, name: str) -> None:
        self._addresses.pop(name, None)


class _End(asyncio.Protocol):
    """One end of a spliced connection. What it receives goes to `other`; it slows down when `other` does."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.has_ended = False
        """Whether it will send no more."""

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def pass_eof(self) -> bool:
        """Half-close the other side; True keeps this one open for what still comes back."""
        self.has_ended = True
        other = self.other
        if other is None or other.transport is None or other.transport.is_closing():
            return False
        if other.has_ended:
            other.finish()
            return False
        other.transport.write_eof()
        return True

    def finish(self) -> None:
        """The other end is gone: send what waits, then close; not for ever."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.close()
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Caller(_End):
    """The outer end: chooses, connects, then passes on."""

    def __init__(self, front: Front, chooser: Chooser, hello_seconds: float) -> None:
        super().__init__()
        self.address = ""
        self.target: Path | None = None
        self._front = front
        self._chooser: Chooser | None = chooser
        self._hello_seconds = hello_seconds
        self._held = bytearray()
        self._deadline: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.address = _address_of(transport.get_extra_info("peername"))
        if not self._front._enter(self):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        _watch_peer(transport.get_extra_info("socket"))
        self._deadline = asyncio.get_running_loop().call_later(self._hello_seconds, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            if self.other.transport is not None:
                self.other.transport.write(data)
            return
        self._held += data
        if self._chooser is None:
            return
        try:
            target = self._chooser.feed(data)
        except NotTLSError as error:
            log.debug("closing a connection of %s: %s", self.address or "the control socket", error)
            self.abort()
            return
        if target is not None and self.transport is not None:
            self._chooser = None
            if not self._front._enter_target(self, target):
                self.abort()
                return
            self.transport.pause_reading()
            self._connecting = asyncio.get_running_loop().create_task(self._connect(target))

    async def _connect(self, target: Path) -> None:
        inner = _Listener(self._front, self)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await _connect_unix(target)
            # Named before gRPC can ask for it.
            inner.name = _name_of(connection)
            self._front._remember(inner.name, self.address)
            await asyncio.get_running_loop().create_unix_connection(lambda: inner, sock=connection)
        except (OSError, TimeoutError) as error:
            log.warning("a listener of this manager takes no connection: %s", error or type(error).__name__)
            self._front._forget_name(inner.name)
            self.abort()
            return
        if self.transport is None or self.transport.is_closing() or inner.transport is None:
            inner.abort()
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self.other = inner
        inner.transport.write(bytes(self._held))
        self._held.clear()
        if self.has_ended:
            inner.transport.write_eof()
        self.transport.resume_reading()

    def eof_received(self) -> bool:
        if self.other is not None:
            return self.pass_eof()
        self.has_ended = True
        return self._connecting is not None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._front._forget(self)
        if self.other is not None:
            self.other.finish() if exc is None else self.other.abort()
        self.transport = None


class _Listener(_End):
    """The inner end, at a gRPC listener."""

    def __init__(self, front: Front, caller: _Caller) -> None:
        super().__init__()
        self.other = caller
        self.name = ""
        self._front = front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        return self.pass_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._front._forget_name(self.name)
        if self.other is not None:
            self.other.finish() if exc is None else self.other.abort()
        self.transport = None


async def _connect_unix(path: Path) -> socket.socket:
    """A connected socket with a name of its own, which is how the listener knows it again."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        connection.bind("")  # Linux gives it a free name in the abstract namespace
        while True:
            try:
                connection.connect(str(path))
            except BlockingIOError:
                # The listener's queue is full. Nothing tells when it no longer is.
                await asyncio.sleep(CONNECT_RETRY_SECONDS)
            else:
                return connection
    except BaseException:
        connection.close()
        raise


def _name_of(connection: socket.socket) -> str:
    """How gRPC names the peer at the other end of `connection`."""
    name = connection.getsockname()
    return "unix-abstract:" + bytes(name).removeprefix(b"\0").decode("ascii")


def _address_of(peer: object) -> str:
    """The IP address of a socket's peer; IPv4 in its own form also where it came over IPv6. Empty for none."""
    if not isinstance(peer, tuple):
        return ""
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _watch_peer(connection: socket.socket | None) -> None:
    """Let the kernel find out when a peer is gone without a word: gRPC sees only the front."""
    if connection is None or connection.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
