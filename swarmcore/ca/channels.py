"""Connections from a node to a manager: with its certificate, without one, and the one call that verifies nothing.

grpcio always verifies the server, so the root certificate is fetched through a splice of our own: plaintext to a
private socket on this side, unverified TLS on the other. What comes back is checked against the join token's digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence

import grpc

from swarmcore.api.ca_pb2 import GetRootCACertificateRequest
from swarmcore.api.ca_pb2_grpc import CAStub
from swarmcore.ca.root import MANAGER_OU, ROOT_NAME
from swarmcore.errors import ConfigurationError, UnavailableError

MAX_RECEIVE_BYTES = 2**31 - 1
READ_BYTES = 64 * 1024
Option = tuple[str, int | str]


def channel_options(server_name: str) -> list[Option]:
    """What each channel to a manager is opened with; `server_name` is what the manager's certificate must name."""
    return [
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.default_authority", server_name),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        ("grpc.max_send_message_length", -1),
        # Each channel has its own connections: what one of them got wrong must not delay another.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]


WATCHED: Sequence[Option] = (
    # A network that swallows everything says nothing; and once it is whole again TCP may wait for a minute. A stock
    # manager would hang up on somebody who asks so often. A ping passes the manager's front, and with it its event
    # loop: more impatience than this would cost a busy manager all its workers at once, when it needs that least.
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # Without this one an unanswered ping ends nothing for a minute (grpcio 1.85).
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def authenticated_channel(
    address: str, root_pem: bytes, key_pem: bytes, chain_pem: bytes, *, is_watched: bool = False
) -> grpc.aio.Channel:
    """A channel on which this node is known by its certificate. `address` is `host:port`.

    `is_watched`, for long streams to managers of this kind: a connection that swallows what is sent ends within 5 s.
    """
    credentials = grpc.ssl_channel_credentials(root_pem, key_pem, chain_pem)
    options = channel_options(MANAGER_OU) + (list(WATCHED) if is_watched else [])
    return grpc.aio.secure_channel(address, credentials, options=options)


def anonymous_channel(address: str, root_pem: bytes) -> grpc.aio.Channel:
    """A channel that trusts the manager and shows no certificate: for the first one."""
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(root_pem), options=channel_options(ROOT_NAME))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[host]:port`; raises ConfigurationError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigurationError(f"{address!r} is no address of a manager: write it like 10.1.1.1:4242")
    return host, int(port)


async def fetch_root(address: str, *, timeout: float) -> bytes:
    """The root certificate (PEM) that the manager at `address` claims. Nothing about it is verified.

    Raises UnavailableError when no manager answers there.
    """
    host, port = split_address(address)
    async with _unverified(host, port) as (target, failures):
        options: Sequence[Option] = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            try:
                answer = await CAStub(channel).GetRootCACertificate(GetRootCACertificateRequest(), timeout=timeout)
            except grpc.aio.AioRpcError as error:
                raise UnavailableError(failures[0] if failures else words_of(error)) from None
    return answer.certificate


@contextlib.asynccontextmanager
async def _unverified(host: str, port: int) -> AsyncIterator[tuple[str, list[str]]]:
    """A private socket whose plaintext goes to `host:port` through TLS that checks nothing.

    Yields its gRPC target and a list in which failures to connect appear, in words.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    failures: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                # An empty server name: no name is sent, as a stock engine does.
                far_reader, far_writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="")
            except OSError as error:
                # asyncio's own text has numbers and a tuple in it.
                text = os.strerror(error.errno) if isinstance(error, ConnectionError) and error.errno else str(error)
                failures.append(" ".join(text.split()) or type(error).__name__)
                return
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, far_writer))
                    group.create_task(_pump(far_reader, writer))
            finally:
                # A close in good order would wait half a minute for the other side's.
                far_writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(splice(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with tempfile.TemporaryDirectory(prefix="swarmcore-") as folder:
        path = f"{folder}/join.sock"
        server = await asyncio.start_unix_server(accept, path)
        try:
            yield f"unix:{path}", failures
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


def words_of(error: grpc.aio.AioRpcError) -> str:
    """What went wrong with a call, in one line."""
    code = error.code().name.lower().replace("_", " ")
    details = " ".join((error.details() or "").split())[:400]
    return details or code
