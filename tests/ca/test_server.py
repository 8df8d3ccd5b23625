"""The CA's services called directly, and the signer with a simulated clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from swarmcore.api import ca_pb2 as pb
from swarmcore.api.caller import Caller, set_caller
from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import EncryptionKey, IssuanceStatus, NodeRole
from swarmcore.ca.issuing import WAITING_SECONDS
from swarmcore.ca.root import new_csr, new_key
from swarmcore.ca.security import SecurityConfig
from swarmcore.ca.server import STATUS_WAITERS_OF_NODE, CertificateAuthority
from swarmcore.errors import (
    AbortedError,
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    NotLeaderError,
)
from swarmcore.plugin.loader import load
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run
from swarmcore.testing.store import running_store
from swarmcore.testing.trust import write_first_objects

ANONYMOUS = Caller(node_id="", role=None, remote_addr="10.0.0.9")
CSR = new_csr(new_key())


@dataclass(frozen=True)
class Scene:
    store: Store
    authority: CertificateAuthority
    security: SecurityConfig
    clock: SimulatedClock
    signer: asyncio.Task[None] | None

    def token(self, role: NodeRole.ValueType = NodeRole.WORKER) -> str:
        tokens = self.store.view.cluster.get(self.security.cluster_id).root_ca.join_tokens  # type: ignore[union-attr]
        return tokens.manager if role == NodeRole.MANAGER else tokens.worker

    async def ask(self, caller: Caller = ANONYMOUS, **fields: Any) -> pb.IssueNodeCertificateResponse:
        set_caller(caller)
        return await self.authority.IssueNodeCertificate(pb.IssueNodeCertificateRequest(**fields), None)

    async def change(self, node_id: str, **spec: Any) -> None:
        def write(tx: Transaction) -> None:
            node = Node()
            node.CopyFrom(tx.node.get(node_id))  # type: ignore[arg-type]
            node.spec.MergeFrom(NodeSpec(**spec))
            tx.node.update(node)

        await self.store.update(write)

    async def status(self, node_id: str) -> pb.NodeCertificateStatusResponse:
        set_caller(ANONYMOUS)
        async with asyncio.timeout(10):
            return await self.authority.NodeCertificateStatus(pb.NodeCertificateStatusRequest(node_id=node_id), None)


@contextlib.asynccontextmanager
async def scene(tmp_path: Path, *, ids: Iterable[str] = (), signs: bool = True, fresh: bool = False) -> Any:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    loaded = load(role="manager")
    async with running_store(clock.now) as store:
        if not fresh:
            await store.update(lambda tx: write_first_objects(tx, security))
        left = iter(ids)
        draw = (lambda: next(left)) if ids else new_id
        authority = CertificateAuthority(store, security=security, plugins=lambda: loaded, clock=clock, new_id=draw)
        signer = asyncio.create_task(authority.run(store.writer(1))) if signs else None
        try:
            yield Scene(store, authority, security, clock, signer)
        finally:
            if signer is not None:
                signer.cancel()
                await asyncio.gather(signer, return_exceptions=True)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        yield made


async def test_a_certificate_says_who_and_for_how_long(at: Scene) -> None:
    answer = await at.ask(csr=CSR, token=at.token(NodeRole.MANAGER))
    status = await at.status(answer.node_id)

    certificate = x509.load_pem_x509_certificate(status.certificate.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert status.status.state == IssuanceStatus.ISSUED and status.certificate.csr == CSR
    assert names.get_values_for_type(x509.DNSName) == ["swarm-manager", answer.node_id, "swarm-ca"]
    assert life.total_seconds() == (2160 + 2) * 3600
    assert {each.rfc4514_attribute_name: each.value for each in certificate.subject} == {
        "O": at.security.cluster_id,
        "OU": "swarm-manager",
        "CN": answer.node_id,
    }


@pytest.mark.parametrize("csr", [b"", b"garbage", CSR[:-40], b"x" * 20_000])
async def test_a_request_that_can_not_be_read_changes_nothing(at: Scene, csr: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        await at.ask(csr=csr, token=at.token())

    assert len(at.store.view.node) == 1


async def test_an_availability_that_nobody_knows_makes_no_node(at: Scene) -> None:
    with pytest.raises(InvalidArgumentError, match="availability 99 does not exist"):
        await at.ask(csr=CSR, availability=99)

    assert len(at.store.view.node.all()) == 1


@pytest.mark.parametrize("token", ["SWMTKN-1-x-y", "nonsense", "x" * 5000, "SWMOLD-1-x.y", "SWMPSK-1-00"])
async def test_a_token_that_nothing_accepts_makes_no_node(at: Scene, token: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its status is what counts
        await at.ask(csr=CSR, token=token)

    assert getattr(caught.value, "status", 0) in (3, 7) and token not in str(caught.value)
    assert len(at.store.view.node) == 1


async def test_the_same_request_again_names_the_same_node(at: Scene) -> None:
    first = await at.ask(csr=CSR, token=at.token())
    both = await asyncio.gather(at.ask(csr=CSR, token=at.token()), at.ask(csr=CSR, token=at.token()))

    assert {first.node_id} == {answer.node_id for answer in both}
    assert len(at.store.view.node) == 2


async def test_the_same_request_twice_at_once_makes_one_node(at: Scene) -> None:
    both = await asyncio.gather(at.ask(csr=CSR, token=at.token()), at.ask(csr=CSR, token=at.token()))

    assert both[0].node_id == both[1].node_id
    assert len(at.store.view.node.all()) == 2


async def test_a_node_that_waits_is_accepted_when_it_comes_again_with_a_token(at: Scene) -> None:
    waiting = await at.ask(csr=CSR)
    assert waiting.node_membership == NodeSpec.PENDING
    with pytest.raises(InvalidArgumentError, match="A valid join token"):
        await at.ask(csr=CSR, token="SWMTKN-1-wrong")  # noqa: S106 - no secret

    accepted = await at.ask(csr=CSR, token=at.token())

    assert (accepted.node_id, accepted.node_membership) == (waiting.node_id, NodeSpec.ACCEPTED)
    answer = await at.authority.NodeCertificateStatus(pb.NodeCertificateStatusRequest(node_id=waiting.node_id), None)
    assert answer.status.state == IssuanceStatus.ISSUED


async def test_an_id_that_is_taken_is_drawn_again(tmp_path: Path) -> None:
    async with scene(tmp_path, ids=["a", "a", "b", "b", "b", "b"]) as at:
        first = await at.ask(csr=CSR, token=at.token())
        second = await at.ask(csr=new_csr(new_key()), token=at.token())
        with pytest.raises(AlreadyExistsError):
            await at.ask(csr=new_csr(new_key()), token=at.token())

    assert (first.node_id, second.node_id) == ("a", "b")


async def test_a_node_with_a_certificate_is_renewed_in_the_role_that_it_has_now(at: Scene) -> None:
    node_id = (await at.ask(csr=CSR, token=at.token())).node_id
    await at.status(node_id)
    again = new_csr(new_key())
    caller = Caller(node_id=node_id, role=NodeRole.WORKER, organization=at.security.cluster_id)

    answer = await at.ask(caller, csr=again, token=at.token(), role=NodeRole.MANAGER)
    status = await at.status(node_id)

    assert answer.node_id == node_id and status.certificate.csr == again
    assert status.certificate.role == NodeRole.WORKER


async def test_a_node_that_is_gone_is_not_renewed(at: Scene) -> None:
    with pytest.raises(NotFoundError, match="node gone not found when attempting to renew certificate"):
        await at.ask(Caller(node_id="gone", role=NodeRole.WORKER), csr=CSR)


async def test_a_waiting_node_is_a_worker_whatever_it_asked_for(at: Scene) -> None:
    node_id = (await at.ask(csr=CSR, role=NodeRole.MANAGER)).node_id
    node = at.store.view.node.get(node_id)

    assert node is not None and node.role == node.spec.desired_role == NodeRole.WORKER
    assert node.spec.membership == NodeSpec.PENDING


async def test_a_waiting_node_is_signed_for_once_it_is_accepted(at: Scene) -> None:
    answer = await at.ask(csr=CSR)
    waiting = asyncio.create_task(at.status(answer.node_id))
    await at.clock.advance(3600)
    assert not waiting.done() and answer.node_membership == NodeSpec.PENDING
    await at.change(answer.node_id, membership=NodeSpec.ACCEPTED)

    assert (await waiting).status.state == IssuanceStatus.ISSUED


async def test_a_node_that_nobody_accepts_is_forgotten_after_a_day(at: Scene) -> None:
    node_id = (await at.ask(csr=CSR)).node_id
    waiting = asyncio.create_task(at.status(node_id))
    await at.clock.advance(WAITING_SECONDS - 2)
    assert at.store.view.node.get(node_id) is not None
    await at.clock.advance(4)

    assert at.store.view.node.get(node_id) is None
    with pytest.raises(NotFoundError):
        await waiting


async def test_what_waited_while_nobody_led_is_signed_by_the_next_leader(tmp_path: Path) -> None:
    async with scene(tmp_path, signs=False) as at:
        node_id = (await at.ask(csr=CSR, token=at.token())).node_id
        signer = asyncio.create_task(at.authority.run(at.store.writer(1)))
        status = await at.status(node_id)
        signer.cancel()
        await asyncio.gather(signer, return_exceptions=True)

    assert status.status.state == IssuanceStatus.ISSUED


async def test_a_hundred_requests_are_signed_in_few_writes(at: Scene) -> None:
    csrs = [new_csr(new_key()) for _ in range(100)]
    token = at.token()
    before = at.store.version
    answers = await asyncio.gather(*(at.ask(csr=csr, token=token) for csr in csrs))
    await asyncio.gather(*(at.status(answer.node_id) for answer in answers))

    assert at.store.version - before <= 40
    assert at.authority._waiters._pump is None


async def test_without_a_cluster_the_caller_is_asked_to_come_again(tmp_path: Path) -> None:
    async with scene(tmp_path, fresh=True) as at:
        with pytest.raises(AbortedError):
            await at.ask(csr=CSR)
        root = await at.authority.GetRootCACertificate(pb.GetRootCACertificateRequest(), None)

    assert root.certificate == at.security.root.certificate_pem


async def test_a_signer_of_an_old_term_writes_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path, signs=False) as at:
        await at.ask(csr=CSR, token=at.token())
        with pytest.raises(NotLeaderError):
            await at.authority.run(at.store.writer(7))


@pytest.mark.parametrize("node_id", ["", "x" * 129])
async def test_a_status_of_nobody_is_an_invalid_argument(at: Scene, node_id: str) -> None:
    with pytest.raises(InvalidArgumentError, match="node_id"):
        await at.status(node_id)


async def test_the_status_of_an_unknown_node_is_not_found(at: Scene) -> None:
    with pytest.raises(NotFoundError):
        await at.status("unknown")


async def test_who_waits_for_a_node_with_too_many_others_is_answered_at_once(at: Scene) -> None:
    made = await at.ask(csr=CSR)
    ask = pb.NodeCertificateStatusRequest(node_id=made.node_id)
    waiting = [
        asyncio.ensure_future(at.authority.NodeCertificateStatus(ask, None)) for _ in range(STATUS_WAITERS_OF_NODE)
    ]
    await let_the_loop_run()
    assert not any(each.done() for each in waiting)

    answer = await asyncio.wait_for(at.authority.NodeCertificateStatus(ask, None), 5)

    assert answer.status.state == IssuanceStatus.PENDING
    await at.change(made.node_id, membership=NodeSpec.ACCEPTED)
    for each in waiting:
        assert (await asyncio.wait_for(each, 5)).status.state == IssuanceStatus.ISSUED


async def test_managers_get_the_unlock_key(at: Scene) -> None:
    def lock(tx: Transaction) -> None:
        from swarmcore.api.objects_pb2 import Cluster

        cluster = Cluster()
        cluster.CopyFrom(tx.cluster.get(at.security.cluster_id))  # type: ignore[arg-type]
        cluster.unlock_keys.append(EncryptionKey(subsystem="swarm-manager", key=b"k" * 32))
        tx.cluster.update(cluster)

    await at.store.update(lock)
    answer = await at.authority.GetUnlockKey(pb.GetUnlockKeyRequest(), None)

    assert answer.unlock_key == b"k" * 32 and answer.version.index == at.store.version
