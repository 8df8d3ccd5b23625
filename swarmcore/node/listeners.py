"""A manager's servers: the one port for other nodes, and the control socket for this machine's operator.

Each is a gRPC server on sockets in a private folder, with a front before it. Whoever calls `serve_remote` or
`serve_control` gives the services and closes what is returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from swarmcore.ca.authorize import Authorizer, Interceptor, LocalAuthorizer
from swarmcore.ca.forwarding import Forwarder, Metadata
from swarmcore.ca.root import MANAGER_OU
from swarmcore.ca.security import SecurityConfig
from swarmcore.clock import Clock
from swarmcore.errors import ConfigurationError
from swarmcore.node.admission import CONNECTIONS_PER_ADDRESS, Admission
from swarmcore.node.front import ByFirstByte, ByServerName, Front
from swarmcore.store.store import Store

log = logging.getLogger("swarmcore.node")

MAX_RECEIVE_BYTES = 4 * 1024 * 1024
MAX_NEWCOMER_BYTES = 64 * 1024
STOP_SECONDS = 4.0
WANTED_FILES = 65_536
FOLDER_PREFIX = "swarmd-sockets-"
STALE_SECONDS = 60.0
MAX_BASE_BYTES = 70

FILES_OF_A_CONNECTION = 3
FILES_FOR_ELSE = 512
"""Log, engine, agent, plugins: a stranger who could take these files away would end the manager."""

Service = tuple[Callable[[Any, Any], None], Any]
"""A generated `add_…Servicer_to_server`, and the servicer."""

SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A manager forwards for all its agents over one connection; a stranger must not open streams without end.
    ("grpc.max_concurrent_streams", 16_384),
    # Stock engines ping as they like: never answer that with a GOAWAY.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Without this one an unanswered ping ends nothing for a minute (grpcio 1.85).
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

NEWCOMER_OPTIONS: Sequence[tuple[str, int]] = (
    # Anyone can get here. A request for a certificate has 32 KiB at most, and nobody needs two at once.
    ("grpc.max_receive_message_length", MAX_NEWCOMER_BYTES),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_connection_idle_ms", 60_000),
)


class Listener:
    """Running servers with their front."""

    def __init__(
        self,
        *,
        servers: Sequence[tuple[grpc.aio.Server, Interceptor]],
        front: Front,
        folder: Path,
        address: str,
        own_file: Path | None = None,
    ) -> None:
        self.address = address
        """`host:port` that is listened on, with the real port; or the path of the socket."""
        self.front = front
        self._servers = servers
        self._folder = folder
        self._own_file = own_file

    async def aclose(self, seconds: float = STOP_SECONDS) -> None:
        """Stop in good order: no new connections, streams ended with UNAVAILABLE, short calls given `seconds`."""
        if self._own_file is not None:
            # While it still answers: afterwards the file could be that of who starts next.
            _remove(self._own_file)
        self.front.stop_listening()
        for _, interceptor in self._servers:
            interceptor.end_streams()
        await asyncio.gather(*(server.stop(seconds) for server, _ in self._servers))
        await self.front.aclose()
        shutil.rmtree(self._folder, ignore_errors=True)


async def serve_remote(
    *,
    listen: str | socket.socket,
    security: SecurityConfig,
    store: Store,
    services: Sequence[Service],
    clock: Clock | None = None,
    forward: Forwarder | None = None,
    check_raft: Callable[[Metadata], None] | None = None,
    connections_per_address: int = CONNECTIONS_PER_ADDRESS,
) -> Listener:
    """Serve other nodes on `listen`: `host:port`, or what `bind_tcp` made of it.

    `forward`: the way to the leader; `check_raft` is the Authorizer's. Raises ConfigurationError, naming the address,
    where it is taken.
    """
    bound = bind_tcp(listen) if isinstance(listen, str) else listen
    try:
        most = places(raise_file_limit())
        folder = _private_folder()
        nodes, newcomers = folder / "nodes", folder / "newcomers"
        front = Front(
            lambda: ByServerName({MANAGER_OU: nodes}, newcomers),
            # However many strangers there are, nodes find a place.
            admission=Admission(per_address=connections_per_address, in_all=most, per_target={newcomers: most // 2}),
        )
        servers = []
        for path, is_known, options in ((nodes, True, SERVER_OPTIONS), (newcomers, False, NEWCOMER_OPTIONS)):
            interceptor = Authorizer(
                security=security,
                store=store,
                remote_address=front.remote_address,
                clock=clock,
                forward=forward,
                check_raft=check_raft,
            )
            server = _server(interceptor, services, {**dict(SERVER_OPTIONS), **dict(options)})
            server.add_secure_port(f"unix:{path}", security.server_credentials(ask_for_certificate=is_known))
            servers.append((server, interceptor))
        for server, _ in servers:
            await server.start()
        await front.listen(bound)
    except BaseException:
        bound.close()
        raise
    address = address_of(bound)
    log.info("serving other nodes on %s", address)
    return Listener(servers=servers, front=front, folder=folder, address=address)


async def serve_control(
    *,
    path: Path,
    security: SecurityConfig,
    services: Sequence[Service],
    bound: socket.socket | None = None,
    forward: Forwarder | None = None,
    address: str = "",
) -> Listener:
    """Serve this machine's operator on the unix socket `path`, mode 0600: plaintext, and TLS for SwarmKit's own client.

    `bound` is what `bind_unix` made of it before; `address` is where the leader is told that this node is. Raises
    ConfigurationError in one line where the socket is in use or can't be made.
    """
    bound = bound or bind_unix(path)
    try:
        folder = _private_folder()
        plaintext, tls = folder / "plaintext", folder / "tls"
        front = Front(lambda: ByFirstByte(tls, plaintext))
        interceptor = LocalAuthorizer(security, forward, address)
        server = _server(interceptor, services, dict(SERVER_OPTIONS))
        server.add_insecure_port(f"unix:{plaintext}")
        server.add_secure_port(f"unix:{tls}", security.server_credentials(ask_for_certificate=False))
        await server.start()
        await front.listen(bound)
    except BaseException:
        bound.close()
        _remove(path)
        raise
    log.info("serving swarmctl on %s", path)
    return Listener(servers=[(server, interceptor)], front=front, folder=folder, address=str(path), own_file=path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _server(interceptor: Interceptor, services: Sequence[Service], options: Mapping[str, int]) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=[interceptor], options=list(options.items()))
    for add, servicer in services:
        add(servicer, server)
    return server


def _private_folder() -> Path:
    """A fresh folder, mode 0700, for sockets. Those that a killed manager left behind are removed."""
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) > MAX_BASE_BYTES:
        base = Path("/tmp")  # a socket's path has 107 bytes at most
    for left in base.glob(FOLDER_PREFIX + "*"):
        with contextlib.suppress(OSError):
            found = left.lstat()
            is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            is_old = is_own and time.time() - found.st_mtime > STALE_SECONDS
            if is_old and not any(_is_answered(path) for path in left.iterdir()):
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))


def bind_tcp(listen: str, flag: str = "--listen-remote-api") -> socket.socket:
    """A bound socket for `host:port`, `[host]:port` or `:port`; raises ConfigurationError naming it and its flag."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigurationError(f"can't listen on {listen!r}: {error.strerror}: check {flag}") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not host:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(target)
        bound.listen(1)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        advice = "another process has the port" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise ConfigurationError(f"can't listen on {listen}: {advice}: change {flag}") from None
    return bound


def address_of(bound: socket.socket) -> str:
    """`host:port` of a bound TCP socket."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_unix(path: Path) -> socket.socket:
    """A bound unix socket at `path`, mode 0600; a stale one is replaced. Raises ConfigurationError naming it."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True)
        if path.is_socket():
            if _is_answered(path):
                raise ConfigurationError(
                    f"can't listen on {path}: another process serves this socket: change --listen-control-api"
                )
            path.unlink()
        elif path.exists():
            raise ConfigurationError(f"can't listen on {path}: there is a file: change --listen-control-api")
        before = os.umask(0o177)
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
        path.chmod(0o600)
        # From here on it answers: to another manager that starts meanwhile it is no stale one.
        bound.listen(1)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"can't listen on {path}: {error.strerror or error}: change --listen-control-api"
        ) from None
    except BaseException:
        bound.close()
        raise
    return bound


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def places(files: int) -> int:
    """How many connections fit into a process that may open so many files."""
    return max(files // 2, files - FILES_FOR_ELSE) // FILES_OF_A_CONNECTION


def raise_file_limit() -> int:
    """Let this process open as many files as it may, and return how many: each node that is connected takes three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return WANTED_FILES if soft == resource.RLIM_INFINITY else soft
