"""The certificate authority's services, on every manager, and its signer, on the leader (SwarmKit: 10.4)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from swarmcore.api import ca_pb2 as pb
from swarmcore.api.ca_pb2_grpc import CAServicer, NodeCAServicer
from swarmcore.api.caller import Caller, current_caller
from swarmcore.api.ids import IdSource, new_id
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import Certificate, IssuanceStatus, NodeRole
from swarmcore.ca import proof
from swarmcore.ca.acceptance import AcceptanceChain, AcceptRuleLike
from swarmcore.ca.issuing import Signer, is_waiting
from swarmcore.ca.root import RootCA, public_key_of_csr
from swarmcore.ca.security import SecurityConfig
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import (
    AbortedError,
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from swarmcore.plugin.acceptance import Accept, JoinRequest
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.store.changes import Resync
from swarmcore.store.store import LeaderStore, Store
from swarmcore.store.transaction import Transaction

log = logging.getLogger("swarmcore.ca")

MANAGER_SUBSYSTEM = "swarm-manager"
MAX_WAITING = 200
MAX_WAITING_OF_ADDRESS = 20
REMEMBERED_REQUESTS = 10_000
ID_ATTEMPTS = 3
STATUS_WAITERS_OF_NODE = 16
"""One node asks with one call. More of them are answered at once, so that a stranger can't make thousands wait here."""
MAX_TOKEN_CHARACTERS = 1024
FINAL = (IssuanceStatus.ISSUED, IssuanceStatus.FAILED, IssuanceStatus.ROTATE)


class CertificateAuthority(CAServicer, NodeCAServicer):
    """Serves CA and NodeCA; as a LeaderComponent it signs."""

    name = "ca"

    def __init__(
        self,
        store: Store,
        *,
        security: SecurityConfig,
        plugins: Callable[[], PluginSet],
        clock: Clock | None = None,
        acceptance: Sequence[AcceptRuleLike] = (),
        new_id: IdSource = new_id,
    ) -> None:
        """`acceptance`: the operator's chain; empty is join tokens, and the operator for a node without one."""
        self._store = store
        self._security = security
        self._clock = clock or SystemClock()
        self._chain = AcceptanceChain(plugins, acceptance, self._clock)
        self._new_id = new_id
        self._waiters = _StatusWaiters(store)
        self._requests: OrderedDict[bytes, str] = OrderedDict()
        """Node ids by digest of the first request: a request sent again makes no second node."""

    async def run(self, store: LeaderStore) -> None:
        """Sign while leading."""
        await Signer(store, self._security.cluster_id, self._clock).run()

    # CA

    async def GetRootCACertificate(
        self, request: pb.GetRootCACertificateRequest, context: object
    ) -> pb.GetRootCACertificateResponse:
        cluster = self._store.view.cluster.get(self._security.cluster_id)
        known = cluster.root_ca.ca_cert if cluster is not None else b""
        return pb.GetRootCACertificateResponse(certificate=known or self._security.root.certificate_pem)

    async def GetUnlockKey(self, request: pb.GetUnlockKeyRequest, context: object) -> pb.GetUnlockKeyResponse:
        cluster = self._cluster()
        answer = pb.GetUnlockKeyResponse(version=cluster.meta.version)
        for key in cluster.unlock_keys:
            if key.subsystem == MANAGER_SUBSYSTEM:
                answer.unlock_key = key.key
        return answer

    # NodeCA

    async def IssueNodeCertificate(
        self, request: pb.IssueNodeCertificateRequest, context: object
    ) -> pb.IssueNodeCertificateResponse:
        caller = current_caller()
        if not request.csr:
            raise InvalidArgumentError("invalid argument: csr is empty")
        if request.availability not in NodeSpec.Availability.values():
            raise InvalidArgumentError(f"invalid argument: availability {request.availability} does not exist")
        public_key_of_csr(request.csr)
        cluster = self._cluster()
        if caller.node_id:
            return await self._renew(caller.node_id, request.csr)
        is_proof = request.token.startswith(proof.PREFIX)
        longest = proof.MAX_CHARACTERS if is_proof else MAX_TOKEN_CHARACTERS
        if len(request.token) > longest:
            raise InvalidArgumentError(f"invalid argument: token is longer than {longest} characters")
        if is_proof:
            return await self._renew_expired(cluster, request)
        return await self._admit(cluster, request, caller)

    async def NodeCertificateStatus(
        self, request: pb.NodeCertificateStatusRequest, context: object
    ) -> pb.NodeCertificateStatusResponse:
        if not request.node_id or len(request.node_id) > 128:
            raise InvalidArgumentError("invalid argument: node_id is empty or too long")
        node = await self._waiters.wait(request.node_id)
        return pb.NodeCertificateStatusResponse(status=node.certificate.status, certificate=node.certificate)

    # Behind them

    def _cluster(self) -> Cluster:
        cluster = self._store.view.cluster.get(self._security.cluster_id)
        if cluster is None:
            raise AbortedError("the certificate authority is not ready yet: try again in a moment")
        return cluster

    async def _renew(self, node_id: str, csr: bytes) -> pb.IssueNodeCertificateResponse:
        def write(tx: Transaction) -> Node:
            old = tx.node.get(node_id)
            if old is None:
                raise NotFoundError(f"node {node_id} not found when attempting to renew certificate")
            node = Node()
            node.CopyFrom(old)
            # The certificate it had stays: a renewal that the node never hears of must not leave it without a last one.
            node.certificate.MergeFrom(Certificate(role=node.role, csr=csr, cn=node_id))
            node.certificate.status.CopyFrom(IssuanceStatus(state=IssuanceStatus.RENEW))
            tx.node.update(node)
            return node

        node = await self._store.update(write)
        return pb.IssueNodeCertificateResponse(node_id=node_id, node_membership=node.spec.membership)

    async def _renew_expired(
        self, cluster: Cluster, request: pb.IssueNodeCertificateRequest
    ) -> pb.IssueNodeCertificateResponse:
        identity, chain = proof.read_proof(
            request.token,
            csr=request.csr,
            root=RootCA(cluster.root_ca.ca_cert),
            cluster_id=cluster.id,
            now=self._clock.now(),
        )
        proof.check_last_certificate(self._store.view.node.get(identity.node_id), identity, chain)
        log.info("node %s comes back with an expired certificate", identity.node_id)
        return await self._renew(identity.node_id, request.csr)

    async def _admit(
        self, cluster: Cluster, request: pb.IssueNodeCertificateRequest, caller: Caller
    ) -> pb.IssueNodeCertificateResponse:
        digest = hashlib.sha256(request.csr).digest()
        known = self._known(digest, self._store.view.node.get)
        if known is not None and not (is_waiting(known) and request.token):
            return pb.IssueNodeCertificateResponse(node_id=known.id, node_membership=known.spec.membership)
        verdict = await self._chain.judge(
            JoinRequest(
                token=request.token,
                csr=request.csr,
                remote_addr=caller.remote_addr,
                cluster_id=cluster.id,
                ca_digest=hashlib.sha256(cluster.root_ca.ca_cert).hexdigest(),
                worker_token=cluster.root_ca.join_tokens.worker,
                manager_token=cluster.root_ca.join_tokens.manager,
                requested_role=request.role,
            )
        )
        if known is not None and isinstance(verdict, Accept):
            node = await self._vouch(known.id, verdict.role)
            return pb.IssueNodeCertificateResponse(node_id=node.id, node_membership=node.spec.membership)
        node = Node()
        node.spec.availability = request.availability
        node.certificate.CopyFrom(
            Certificate(csr=request.csr, status=IssuanceStatus(state=IssuanceStatus.PENDING), role=NodeRole.WORKER)
        )
        if isinstance(verdict, Accept):
            node.role = node.spec.desired_role = node.certificate.role = verdict.role
            node.spec.membership = NodeSpec.ACCEPTED
        else:
            # Nobody vouches for it: a worker at most, whatever it asked for. The operator promotes it later.
            node.spec.membership = NodeSpec.PENDING
            node.status.message = verdict.reason
            node.status.addr = caller.remote_addr
        node = await self._create(node, digest)
        if node.spec.membership == NodeSpec.PENDING:
            log.warning(
                "node %s at %s %s: `swarmctl node accept %s` or `reject`",
                node.id,
                caller.remote_addr or "an unknown address",
                node.status.message,
                node.id,
            )
        return pb.IssueNodeCertificateResponse(node_id=node.id, node_membership=node.spec.membership)

    async def _vouch(self, node_id: str, role: NodeRole.ValueType) -> Node:
        """Accept a node that waits: it came again, with a token."""

        def write(tx: Transaction) -> Node:
            old = tx.node.get(node_id)
            if old is None:
                raise AbortedError("the node was rejected meanwhile: ask again")
            if not is_waiting(old):
                return old
            node = Node()
            node.CopyFrom(old)
            node.role = node.spec.desired_role = node.certificate.role = role
            node.spec.membership = NodeSpec.ACCEPTED
            node.status.message = ""
            tx.node.update(node)
            return node

        return await self._store.update(write)

    def _known(self, digest: bytes, get: Callable[[str], Node | None]) -> Node | None:
        """The node that this very request made before."""
        node_id = self._requests.get(digest)
        node = None if node_id is None else get(node_id)
        if node is None or hashlib.sha256(node.certificate.csr).digest() != digest:
            return None
        return node

    async def _create(self, node: Node, digest: bytes) -> Node:
        for left in reversed(range(ID_ATTEMPTS)):
            fresh = Node()
            fresh.CopyFrom(node)
            fresh.id = fresh.certificate.cn = self._new_id()

            def write(tx: Transaction, fresh: Node = fresh) -> Node:
                known = self._known(digest, tx.node.get)
                if known is not None:
                    return known
                if fresh.spec.membership == NodeSpec.PENDING:
                    _check_room(tx, fresh.status.addr)
                tx.node.create(fresh)
                # At once: the same request may stand in the same transaction again.
                self._remember(digest, fresh.id)
                return fresh

            try:
                return await self._store.update(write)
            except AlreadyExistsError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _remember(self, digest: bytes, node_id: str) -> None:
        self._requests[digest] = node_id
        while len(self._requests) > REMEMBERED_REQUESTS:
            self._requests.popitem(last=False)


def _check_room(tx: Transaction, address: str) -> None:
    """Refuse one more waiting node where there are too many, in all or of one address."""
    waiting = [node for node in tx.node.all() if is_waiting(node)]
    if len(waiting) >= MAX_WAITING:
        raise ResourceExhaustedError(f"{MAX_WAITING} nodes wait to be accepted already: accept or reject some first")
    if sum(node.status.addr == address for node in waiting) >= MAX_WAITING_OF_ADDRESS:
        raise ResourceExhaustedError(
            f"{MAX_WAITING_OF_ADDRESS} nodes of {address or 'this address'} wait to be accepted already: "
            "accept or reject some first"
        )


class _StatusWaiters:
    """Everyone who waits for a certificate, served by one subscription while there is anyone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._pump: asyncio.Task[None] | None = None

    async def wait(self, node_id: str) -> Node:
        """The node, once its certificate is issued, failed or to be rotated; as it is, where too many wait for it.

        Raises NotFoundError, also later on.
        """
        while True:
            node = self._store.view.node.get(node_id)
            if node is None:
                raise NotFoundError(f"node {node_id} not found")
            if node.certificate.status.state in FINAL:
                return node
            if len(self._waiting.get(node_id, ())) >= STATUS_WAITERS_OF_NODE:
                return node
            await self._wait_change(node_id)

    async def _wait_change(self, node_id: str) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(node_id, set()).add(changed)
        if self._pump is None:
            changes = self._store.subscribe(("node",))
            self._pump = asyncio.create_task(self._deliver(changes), name="certificate status")
        try:
            await changed
        finally:
            waiters = self._waiting.get(node_id)
            if waiters is not None:
                waiters.discard(changed)
                if not waiters:
                    del self._waiting[node_id]
            if not self._waiting and self._pump is not None:
                self._pump.cancel()
                self._pump = None

    async def _deliver(self, changes: Any) -> None:
        with contextlib.closing(changes):
            async for commit in changes:
                ids = list(self._waiting) if isinstance(commit, Resync) else [each.id for each in commit.changes]
                for node_id in ids:
                    for changed in self._waiting.get(node_id, ()):
                        if not changed.done():
                            changed.set_result(None)
