"""A manager's two servers: who gets in by which way, and how they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import tempfile
import time
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from swarmcore.api import health_pb2 as health
from swarmcore.api.ca_pb2 import IssueNodeCertificateRequest, NodeCertificateStatusRequest
from swarmcore.api.ca_pb2_grpc import NodeCAStub
from swarmcore.api.caller import Caller, current_caller
from swarmcore.api.dispatcher_pb2 import SessionMessage, SessionRequest
from swarmcore.api.dispatcher_pb2_grpc import DispatcherServicer, DispatcherStub, add_DispatcherServicer_to_server
from swarmcore.api.health_pb2_grpc import HealthServicer, HealthStub, add_HealthServicer_to_server
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.channels import anonymous_channel
from swarmcore.ca.root import new_csr, new_key
from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import ConfigurationError, NotFoundError
from swarmcore.node import listeners
from swarmcore.node.listeners import (
    MAX_NEWCOMER_BYTES,
    MAX_RECEIVE_BYTES,
    Listener,
    Service,
    serve_control,
    serve_remote,
)
from swarmcore.testing.engines import scratch
from swarmcore.testing.store import running_store
from swarmcore.testing.trust import trusted_manager


class RecordingHealth(HealthServicer):
    """Says who called, and fails as it is told."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.error: Exception | None = None

    async def Check(self, request: health.HealthCheckRequest, context: Any) -> health.HealthCheckResponse:
        self.callers.append(current_caller())
        if self.error is not None:
            raise self.error
        return health.HealthCheckResponse(status=health.HealthCheckResponse.SERVING)


class EndlessSessions(DispatcherServicer):
    """Sessions that send one message and stay."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.ended = 0

    async def Session(self, request: SessionRequest, context: Any) -> AsyncIterator[SessionMessage]:
        self.callers.append(current_caller())
        try:
            yield SessionMessage(session_id="one")
            await asyncio.Event().wait()
        finally:
            self.ended += 1


@contextlib.asynccontextmanager
async def control(folder: Path, servicer: RecordingHealth) -> AsyncIterator[tuple[Listener, SecurityConfig]]:
    security = SecurityConfig.create_cluster(folder / "certificates")
    services: list[Service] = [(add_HealthServicer_to_server, servicer)]
    listener = await serve_control(path=folder / "run" / "swarmd.sock", security=security, services=services)
    try:
        yield listener, security
    finally:
        await listener.aclose(0)


async def check(channel: grpc.aio.Channel) -> int:
    return (await HealthStub(channel).Check(health.HealthCheckRequest(), timeout=10)).status


async def test_plaintext_on_the_control_socket_acts_as_this_node(tmp_path: Path) -> None:
    servicer = RecordingHealth()
    async with control(tmp_path, servicer) as (listener, security):
        async with grpc.aio.insecure_channel(f"unix:{listener.address}") as channel:
            assert await check(channel) == health.HealthCheckResponse.SERVING

    assert servicer.callers == [
        Caller(node_id=security.node_id, role=NodeRole.MANAGER, organization=security.cluster_id, is_local=True)
    ]


async def test_tls_on_the_control_socket_works_without_a_certificate(tmp_path: Path) -> None:
    async with control(tmp_path, RecordingHealth()) as (listener, security):
        credentials = grpc.ssl_channel_credentials(security.root.certificate_pem)
        options = [("grpc.ssl_target_name_override", "swarm-manager")]
        async with grpc.aio.secure_channel(f"unix:{listener.address}", credentials, options=options) as channel:
            assert await check(channel) == health.HealthCheckResponse.SERVING


async def test_the_control_socket_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    async with control(tmp_path, RecordingHealth()) as (listener, _):
        path = Path(listener.address)
        modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]

    assert modes == [0o600, 0o700]
    assert not any((tmp_path / "run").iterdir())


async def test_a_folder_that_is_there_keeps_its_mode_and_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    async with control(tmp_path, RecordingHealth()) as (listener, _):
        await listener.front.aclose()  # leaves the file behind, as a kill does
        again = await serve_control(path=Path(listener.address), security=_, services=[])
        mode = stat.S_IMODE((tmp_path / "run").stat().st_mode)
        await again.aclose(0)

    assert mode == 0o755


async def test_a_control_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    async with control(tmp_path, RecordingHealth()) as (listener, security):
        with pytest.raises(ConfigurationError, match="another process serves this socket") as caught:
            await serve_control(path=Path(listener.address), security=security, services=[])

        assert listener.address in str(caught.value) and "\n" not in str(caught.value)
        async with grpc.aio.insecure_channel(f"unix:{listener.address}") as channel:
            assert await check(channel) == health.HealthCheckResponse.SERVING


def test_two_managers_that_start_at_once_do_not_share_a_control_socket(tmp_path: Path) -> None:
    with listeners.bind_unix(tmp_path / "swarmd.sock"):
        with pytest.raises(ConfigurationError, match="another process serves this socket"):
            listeners.bind_unix(tmp_path / "swarmd.sock")


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    security = SecurityConfig.create_cluster(tmp_path)
    async with running_store(time.time) as store:
        first = await serve_remote(listen="127.0.0.1:0", security=security, store=store, services=[])
        with pytest.raises(ConfigurationError, match="another process has the port") as caught:
            await serve_remote(listen=first.address, security=security, store=store, services=[])
        await first.aclose(0)

    assert first.address in str(caught.value)


@pytest.mark.parametrize("listen", ["nosuchhost.invalid:1", "192.0.2.1:4242", "127.0.0.1:notaport"])
async def test_an_address_that_is_not_ours_is_a_one_line_error(tmp_path: Path, listen: str) -> None:
    security = SecurityConfig.create_cluster(tmp_path)
    async with running_store(time.time) as store:
        with pytest.raises(ConfigurationError, match="can't listen on"):
            await serve_remote(listen=listen, security=security, store=store, services=[])


async def test_ipv6_is_served_too(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m", listen="[::1]:0") as manager:
        joined = await SecurityConfig.join(tmp_path / "n", manager.address, manager.token())

        assert manager.store.view.node.get(joined.node_id) is not None


async def test_a_stop_ends_streams_with_unavailable_at_once(tmp_path: Path) -> None:
    sessions = EndlessSessions()  # type: ignore[abstract]  # the generated base answers the other calls
    services: list[Service] = [(add_DispatcherServicer_to_server, sessions)]
    async with trusted_manager(tmp_path / "m", services=services) as manager:
        worker = await SecurityConfig.join(tmp_path / "n", manager.address, manager.token())
        async with worker.open_channel(manager.address) as channel:
            call = DispatcherStub(channel).Session(SessionRequest())
            assert await call.read() == SessionMessage(session_id="one")
            started = time.monotonic()
            await manager.listener.aclose(30)
            assert time.monotonic() - started < 5
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert sessions.ended == 1
    assert sessions.callers[0].node_id == worker.node_id
    assert sessions.callers[0].remote_addr == "127.0.0.1"


async def test_an_agent_stays_with_a_manager_that_is_busy_for_two_seconds(tmp_path: Path) -> None:
    sessions = EndlessSessions()  # type: ignore[abstract]  # the generated base answers the other calls
    services: list[Service] = [(add_DispatcherServicer_to_server, sessions)]
    async with trusted_manager(tmp_path / "m", services=services) as manager:
        worker = await SecurityConfig.join(tmp_path / "n", manager.address, manager.token())
        async with worker.open_watched_channel(manager.address) as channel:
            call = DispatcherStub(channel).Session(SessionRequest())
            await call.read()
            # The manager's front has this loop; pings and their answers are gRPC's threads'.
            time.sleep(2.0)  # noqa: ASYNC251 - the fault
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call.read(), 0.5)


async def test_a_renewed_certificate_is_used_with_no_restart(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        host, port = manager.address.split(":")
        before = await asyncio.to_thread(_shown_certificate, host, int(port))
        await manager.security.renew(lambda: _opened(manager.security, manager.address))
        after = await asyncio.to_thread(_shown_certificate, host, int(port))

    assert before != after
    assert after == ssl.PEM_cert_to_DER_cert(manager.security.material.chain_pem.decode())


async def _opened(security: SecurityConfig, address: str) -> grpc.aio.Channel:
    return security.open_channel(address)


def _shown_certificate(host: str, port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, port), timeout=10))


async def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        host, port = manager.address.split(":")

        with pytest.raises(OSError):  # noqa: PT011 - an alert, or the end of the connection
            await asyncio.to_thread(_speak_old_tls, host, int(port))


def _speak_old_tls(host: str, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection((host, port), timeout=10) as raw, context.wrap_socket(raw):
        pass


async def test_what_a_service_raises_becomes_a_status_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    servicer = RecordingHealth()
    async with control(tmp_path, servicer) as (listener, _):
        async with grpc.aio.insecure_channel(f"unix:{listener.address}") as channel:
            answers = []
            for servicer.error in (NotFoundError("no\nsuch  thing"), RuntimeError("a secret")):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await check(channel)
                answers.append((caught.value.code(), caught.value.details()))

    assert answers == [
        (grpc.StatusCode.NOT_FOUND, "no such thing"),
        (grpc.StatusCode.INTERNAL, "internal error: the manager's log says more"),
    ]
    assert "/docker.swarmkit.v1.Health/Check failed" in caplog.text


async def test_a_message_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with control(tmp_path, RecordingHealth()) as (listener, _):
        async with grpc.aio.insecure_channel(f"unix:{listener.address}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await HealthStub(channel).Check(health.HealthCheckRequest(service="x" * MAX_RECEIVE_BYTES))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stranger_may_send_little(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        channel = anonymous_channel(manager.address, manager.security.root.certificate_pem)
        request = IssueNodeCertificateRequest(csr=b"x" * MAX_NEWCOMER_BYTES)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await NodeCAStub(channel).IssueNodeCertificate(request, timeout=10)
        await channel.close()

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stranger_asks_for_few_things_at_once(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        channel = anonymous_channel(manager.address, manager.security.root.certificate_pem)
        stub = NodeCAStub(channel)
        made = [
            await stub.IssueNodeCertificate(IssueNodeCertificateRequest(csr=new_csr(new_key())), timeout=10)
            for _ in range(4)
        ]
        asked = [
            asyncio.ensure_future(stub.NodeCertificateStatus(NodeCertificateStatusRequest(node_id=each.node_id)))
            for each in made
            for _ in range(10)
        ]
        waiting = manager.authority._waiters._waiting
        async with asyncio.timeout(10):
            while sum(map(len, waiting.values())) < 16:  # noqa: ASYNC110 - it has no event for tests
                await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)

        assert sum(map(len, waiting.values())) == 16
        for call in asked:
            call.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await channel.close()


async def test_many_garbage_connections_do_not_disturb_a_join(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        host, port = manager.address.split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
        for number, (_, writer) in enumerate(idle):
            writer.write([b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.0\r\n\r\n"][number % 3])

        joined = await SecurityConfig.join(tmp_path / "n", manager.address, manager.token())

        assert joined.role == NodeRole.WORKER
        for _, writer in idle:
            writer.close()


async def test_a_stop_does_not_wait_for_those_who_wait_for_the_operator(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        with manager.store.subscribe(("node",)) as changes:
            joining = asyncio.create_task(SecurityConfig.join(tmp_path / "n", manager.address, ""))
            await changes.get()
            async with asyncio.timeout(10):
                while not manager.authority._waiters._waiting:  # noqa: ASYNC110 - it has no event for tests
                    await asyncio.sleep(0)
            started = time.monotonic()
            await manager.listener.aclose(30)
            assert time.monotonic() - started < 5
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)


def test_what_a_killed_manager_left_behind_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    with scratch() as base:
        monkeypatch.setattr(tempfile, "tempdir", str(base))
        old, alive = (base / f"{listeners.FOLDER_PREFIX}{name}" for name in ("old", "alive"))
        for folder in (old, alive):
            folder.mkdir()
        with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as live:
            dead.bind(str(old / "nodes"))
            live.bind(str(alive / "nodes"))
            live.listen()
            for folder in (old, alive):
                os.utime(folder, (0, 0))
            fresh = listeners._private_folder()

        assert set(base.iterdir()) == {alive, fresh}
        assert stat.S_IMODE(fresh.stat().st_mode) == 0o700


@pytest.mark.parametrize(("files", "most"), [(65_536, 21_674), (1024, 170), (200, 33)])
def test_connections_leave_files_for_the_log_and_the_engine(files: int, most: int) -> None:
    assert listeners.places(files) == most
    assert 3 * most < files
