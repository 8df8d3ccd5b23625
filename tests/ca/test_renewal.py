"""When a certificate is renewed, and that it is: with a simulated clock, and once over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.api.ca_pb2_grpc import add_NodeCAServicer_to_server
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import IssuanceStatus, NodeRole
from swarmcore.ca.files import CertificateFolder
from swarmcore.ca.renewal import FORCED_PAUSE_SECONDS, Renewer, backoff, renewal_moment
from swarmcore.ca.request import RefusedError
from swarmcore.ca.root import Identity, RootCA, new_csr, new_key, public_key_of_csr
from swarmcore.ca.security import Material, SecurityConfig
from swarmcore.errors import ConfigurationError, UnavailableError
from swarmcore.node.listeners import Service, serve_control
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.trust import TrustedManager, trusted_manager

HOUR = 3600.0


class FakeSecurity:
    """A certificate of ten hours that is renewed as the test says."""

    def __init__(self, clock: SimulatedClock, real: Material) -> None:
        self._clock = clock
        self._real = real
        self.material = self._fresh(NodeRole.WORKER)
        self.next_role: NodeRole.ValueType = NodeRole.WORKER
        self.error: Exception | None = None
        self.renewed: list[float] = []
        """Monotonic times of all tries."""

    def _fresh(self, role: NodeRole.ValueType) -> Material:
        now = self._clock.now()
        identity = Identity(node_id="n", role=role, cluster_id="c")
        return replace(self._real, identity=identity, not_before=now, not_after=now + 10 * HOUR)

    @property
    def role(self) -> NodeRole.ValueType:
        return self.material.identity.role

    def when_new_key_is_wanted(self, act: Callable[[], None]) -> None:
        self.want_new_key = act

    async def renew(self, open_channel: Callable[[], Awaitable[grpc.aio.Channel]]) -> None:
        self.renewed.append(self._clock.monotonic())
        if self.error is not None:
            raise self.error
        self.material = self._fresh(self.next_role)


async def _no_channel() -> grpc.aio.Channel:
    raise AssertionError("the fake needs none")


@contextlib.asynccontextmanager
async def renewing(tmp_path: Path, chance: float = 0.0) -> AsyncIterator[tuple[SimulatedClock, FakeSecurity, Renewer]]:
    clock = SimulatedClock()
    security = FakeSecurity(clock, SecurityConfig.create_cluster(tmp_path, clock).material)
    renewer = Renewer(security, open_channel=_no_channel, clock=clock, chance=lambda: chance)  # type: ignore[arg-type]
    task = asyncio.create_task(renewer.run())
    try:
        yield clock, security, renewer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@given(st.floats(3600, 10**8), st.floats(0, 1, exclude_max=True))
def test_the_moment_is_between_half_and_four_fifths_of_the_life(life: float, chance: float) -> None:
    moment = renewal_moment(0.0, life, chance)

    assert life * 0.5 <= moment < life * 0.8 + 60


def test_the_pause_after_failures_grows_to_an_hour() -> None:
    assert [backoff(failures) for failures in (1, 2, 3, 10, 20, 5000)] == [5, 10, 20, 2560, 3600, 3600]


async def test_it_renews_when_the_moment_comes_and_plans_the_next(tmp_path: Path) -> None:
    async with renewing(tmp_path) as (clock, security, _):
        start = clock.monotonic()
        await clock.advance(5 * HOUR - 1)
        assert security.renewed == []
        await clock.advance(1)
        await clock.advance(5 * HOUR)

    assert [moment - start for moment in security.renewed] == [5 * HOUR, 10 * HOUR]


async def test_it_tries_again_later_and_later_while_no_manager_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with renewing(tmp_path) as (clock, security, _):
        start = clock.monotonic() + 5 * HOUR
        security.error = UnavailableError("nobody answers")
        await clock.advance(5 * HOUR + 36)
        security.error = None
        await clock.advance(60)

    assert [moment - start for moment in security.renewed] == [0, 5, 15, 35, 75]
    assert "can't renew the certificate: nobody answers; next try in 5 s" in caplog.text


async def test_a_bug_in_one_try_does_not_end_the_renewer(tmp_path: Path) -> None:
    async with renewing(tmp_path) as (clock, security, _):
        security.error = RuntimeError("a bug")
        await clock.advance(5 * HOUR)
        security.error = None
        await clock.advance(5)

    assert len(security.renewed) == 2


async def test_a_rotation_is_followed_after_a_short_pause(tmp_path: Path) -> None:
    async with renewing(tmp_path) as (clock, security, renewer):
        await clock.advance(1)
        node = Node()
        node.certificate.status.state = IssuanceStatus.ROTATE
        renewer.node_changed(node)
        await clock.advance(0)
        assert security.renewed == []
        await clock.advance(FORCED_PAUSE_SECONDS)

    assert len(security.renewed) == 1


async def test_a_promoted_node_asks_until_it_has_its_role(tmp_path: Path) -> None:
    async with renewing(tmp_path) as (clock, security, renewer):
        await clock.advance(1)
        node = Node()
        node.spec.desired_role = NodeRole.MANAGER
        for _ in range(3):  # the same news again changes nothing
            renewer.node_changed(node)
        await clock.advance(20)
        assert len(security.renewed) == 3
        security.next_role = NodeRole.MANAGER
        await clock.advance(60)
        assert security.role == NodeRole.MANAGER
        tries = len(security.renewed)
        renewer.node_changed(node)
        await clock.advance(4 * HOUR)

    assert len(security.renewed) == tries


async def test_a_certificate_is_renewed_over_the_wire_with_a_new_key(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        worker = await SecurityConfig.join(tmp_path / "n", manager.address, manager.token())
        before = worker.material
        serial = worker.serial

        async def open_channel() -> grpc.aio.Channel:
            return worker.open_channel(manager.address)

        renewer = Renewer(worker, open_channel=open_channel)
        task = asyncio.create_task(renewer.run())
        renewer.force()
        async with asyncio.timeout(20):
            assert await worker.wait_change(serial) == serial + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        reloaded = SecurityConfig.load(tmp_path / "n")

    assert worker.node_id == before.identity.node_id
    assert worker.material.key_pem != before.key_pem and worker.material.chain_pem != before.chain_pem
    assert reloaded is not None and reloaded.material.chain_pem == worker.material.chain_pem


async def test_a_promotion_changes_the_role_in_the_certificate(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        worker = await SecurityConfig.join(tmp_path / "n", manager.address, manager.token())

        def promote(tx: Transaction) -> None:
            node = Node()
            old = tx.node.get(worker.node_id)
            assert old is not None
            node.CopyFrom(old)
            node.role = node.spec.desired_role = NodeRole.MANAGER
            tx.node.update(node)

        await manager.store.update(promote)
        await worker.renew(lambda: _channel(worker, manager.address))

    assert worker.role == NodeRole.MANAGER


async def _channel(security: SecurityConfig, address: str) -> grpc.aio.Channel:
    return security.open_channel(address)


async def _expired_node(
    manager: TrustedManager, folder: Path, node_id: str, role: NodeRole.ValueType
) -> SecurityConfig:
    """A node that joined a hundred days ago for two hours, and was off since."""
    root = manager.security.root_with_key
    assert root is not None
    key = new_key()
    chain = root.sign(
        public_key_of_csr(new_csr(key)),
        node_id=node_id,
        role=role,
        cluster_id=manager.security.cluster_id,
        now=time.time() - 100 * 24 * HOUR,
        validity=timedelta(hours=1),
    )

    def write(tx: Transaction) -> None:
        node = Node(id=node_id, role=role)
        node.spec.membership = NodeSpec.ACCEPTED
        node.certificate.certificate = chain
        node.certificate.status.state = IssuanceStatus.ISSUED
        tx.node.create(node)

    await manager.store.update(write)
    files = CertificateFolder(folder)
    files.create()
    files.write_root(root.certificate_pem)
    files.write_node(chain, key)
    security = SecurityConfig.load(folder)
    assert security is not None and security.is_expired
    return security


async def test_a_node_that_was_off_for_longer_than_its_certificate_lasts_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        worker = await _expired_node(manager, tmp_path / "n", "sleeper", NodeRole.WORKER)
        await worker.renew(lambda: _channel(worker, manager.address))

    assert not worker.is_expired and worker.node_id == "sleeper"
    assert "the certificate of node sleeper has expired; renewing it first" in caplog.text


async def test_an_expired_certificate_is_worth_nothing_once_its_node_is_removed(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        worker = await _expired_node(manager, tmp_path / "n", "sleeper", NodeRole.WORKER)
        await manager.remove("sleeper")

        with pytest.raises(RefusedError, match="node sleeper was removed from swarm"):
            await worker.renew(lambda: _channel(worker, manager.address))


async def test_an_expired_certificate_is_worth_nothing_once_there_is_a_later_one(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        worker = await _expired_node(manager, tmp_path / "n", "sleeper", NodeRole.WORKER)
        stolen = SecurityConfig.load(tmp_path / "n")
        assert stolen is not None
        await worker.renew(lambda: _channel(worker, manager.address))

        with pytest.raises(RefusedError, match="is not its last one"):
            await stolen.renew(lambda: _channel(stolen, manager.address))


async def test_an_expired_certificate_without_its_key_proves_nothing(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        worker = await _expired_node(manager, tmp_path / "n", "sleeper", NodeRole.WORKER)
        worker._material = replace(worker.material, key_pem=new_key())

        with pytest.raises(RefusedError, match="does not prove who this node is"):
            await worker.renew(lambda: _channel(worker, manager.address))


async def test_the_certificate_of_another_node_is_not_installed(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        one = await SecurityConfig.join(tmp_path / "1", manager.address, manager.token())
        two = await SecurityConfig.join(tmp_path / "2", manager.address, manager.token())

        with pytest.raises(ConfigurationError, match="of another node"):
            one.install(two.material.chain_pem, two.material.key_pem)

    assert one.node_id != two.node_id


async def test_a_manager_renews_itself_over_its_own_control_socket(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        services: list[Service] = [(add_NodeCAServicer_to_server, manager.authority)]
        control = await serve_control(path=tmp_path / "s.sock", security=manager.security, services=services)
        before = manager.security.material

        async def open_channel() -> grpc.aio.Channel:
            return grpc.aio.insecure_channel(f"unix:{control.address}")

        await manager.security.renew(open_channel)
        await control.aclose(0)

    assert manager.security.material.key_pem != before.key_pem
    assert manager.security.role == NodeRole.MANAGER


async def test_a_manager_whose_certificate_expired_signs_itself_a_new_one(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        old = await _expired_node(manager, tmp_path / "n", "second-manager", NodeRole.MANAGER)
        worker = await _expired_node(manager, tmp_path / "w", "worker", NodeRole.WORKER)
        root_ca = manager.cluster.root_ca

        old.renew_locally(RootCA(root_ca.ca_cert, root_ca.ca_key))
        with pytest.raises(ConfigurationError, match="only a manager"):
            worker.renew_locally(RootCA(root_ca.ca_cert, root_ca.ca_key))
        with pytest.raises(ConfigurationError, match="not signed by the trusted root CA"):
            old.renew_locally(RootCA.create(now=time.time()))

    assert not old.is_expired and old.node_id == "second-manager"


async def test_a_certificate_for_another_key_is_not_installed(tmp_path: Path) -> None:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    root, before = security.root_with_key, security.material
    assert root is not None
    chain = root.sign(
        public_key_of_csr(new_csr(new_key())),
        node_id=security.node_id,
        role=security.role,
        cluster_id=security.cluster_id,
        now=clock.now(),
    )

    with pytest.raises(ConfigurationError, match="belongs to another key"):
        security.install(chain, new_key())

    loaded = SecurityConfig.load(tmp_path, clock)
    assert loaded is not None
    assert loaded.material.key_pem == security.material.key_pem == before.key_pem
