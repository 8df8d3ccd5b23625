"""What a node holds: its identity, the root it trusts, its certificate and key; and the credentials made of them.

One object for the life of the node. A renewal replaces its content, on disk and here, and everything that was made
with `server_credentials` uses the new certificate from the next handshake on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography.exceptions import UnsupportedAlgorithm

from swarmcore.api.ids import new_id
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole, NodeTLSInfo
from swarmcore.ca import joining, request
from swarmcore.ca.channels import anonymous_channel, authenticated_channel
from swarmcore.ca.files import CertificateFolder, what_to_do
from swarmcore.ca.proof import make_proof
from swarmcore.ca.root import (
    DEFAULT_VALIDITY,
    Identity,
    Issuer,
    RootCA,
    issuer_of,
    load_certificates,
    load_key,
    new_csr,
    new_key,
    public_key_of_csr,
)
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import ConfigurationError, DamagedStateError, InvalidArgumentError
from swarmcore.plugin.acceptance import JoinMethod

log = logging.getLogger("swarmcore.ca")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Material:
    """One certificate with all that belongs to it. Never changes, so other threads may read it."""

    identity: Identity
    root: RootCA
    """Without its key."""
    chain_pem: bytes
    key_pem: bytes
    issuer: Issuer
    not_before: float
    not_after: float


def read_material(root_pem: bytes, chain: bytes, key: bytes, *, now: float, allow_expired: bool = False) -> Material:
    """Check a certificate and read it; raises ConfigurationError."""
    root = RootCA(root_pem)
    identity = root.check(chain, now=now, allow_expired=allow_expired)
    certificates = load_certificates(chain)
    leaf = certificates[0]
    if leaf.public_key() != load_key(key).public_key():
        # On disk such a pair would be no identity at all.
        raise ConfigurationError("the certificate belongs to another key")
    above = next((each for each in (*certificates[1:], *root.certificates) if each.subject == leaf.issuer), None)
    return Material(
        identity=identity,
        root=root,
        chain_pem=chain,
        key_pem=key,
        issuer=root.issuer if above is None else issuer_of(above),
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
    )


class SecurityConfig:
    """The trust of one node. Made by `load`, `create_cluster` or `join`."""

    def __init__(
        self, files: CertificateFolder, material: Material, clock: Clock, root_key: bytes | None = None
    ) -> None:
        self._files = files
        self._clock = clock
        self._material = material
        self._root_key = root_key
        self._serial = 0
        self._changed = asyncio.Event()
        self._dialled = ""
        self._is_new_key_wanted = False
        self._want_new_key: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"SecurityConfig(node_id={self.node_id!r}, role={NodeRole.Name(self.role)})"

    @classmethod
    def load(
        cls,
        folder: Path,
        clock: Clock | None = None,
        *,
        find_secret: Callable[[bytes], bytes | None] | None = None,
    ) -> SecurityConfig | None:
        """What `folder` (`certificates` of the state directory) holds; None where this node has no certificate yet.

        An expired certificate is accepted, with a warning: the node renews it. `find_secret` gives what the sealed
        private key (PEM) is opened with. Raises ConfigurationError and DamagedStateError in one line.
        """
        files = CertificateFolder(folder, find_secret)
        root_pem, node = files.read_root(), files.read_node()
        if node is None:
            return None
        if root_pem is None:
            raise DamagedStateError(f"{str(folder)!r} has a certificate and no root: {what_to_do(folder)}")
        files.remove_unfinished()
        clock = clock or SystemClock()
        now = clock.now()
        try:
            material = read_material(root_pem, *node, now=now, allow_expired=True)
        except (ConfigurationError, InvalidArgumentError) as error:
            raise DamagedStateError(f"{str(folder)!r}: {error}: {what_to_do(folder)}") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # What the library raises for a certificate that is damaged inside.
            raise DamagedStateError(f"{str(folder)!r}: a certificate can't be read: {what_to_do(folder)}") from None
        if now > material.not_after:
            log.warning("the certificate of node %s has expired; renewing it first", material.identity.node_id)
        elif now < material.not_before:
            raise ConfigurationError("the certificate of this node is not valid yet: set this machine's clock")
        return cls(files, material, clock, files.read_root_key())

    @classmethod
    def create_cluster(cls, folder: Path, clock: Clock | None = None) -> SecurityConfig:
        """A new root CA and, signed by it, the certificate of the first manager; all on disk when this returns.

        The root's key stays in the folder until `forget_root_key`, so a kill before the first write loses nothing.
        """
        files = CertificateFolder(folder)
        files.create()
        clock = clock or SystemClock()
        now = clock.now()
        root_pem, root_key = files.read_root(), files.read_root_key()
        if root_pem is not None and root_key is not None:
            root = RootCA(root_pem, root_key)
        elif root_pem is not None:
            raise ConfigurationError(
                f"{str(folder)!r} has a root certificate but no key and no node certificate: "
                "name a manager with --join-addr, or remove the folder"
            )
        else:
            root = RootCA.create(now=now)
            assert root.key_pem is not None
            files.write_root_key(root.key_pem)
            files.write_root(root.certificate_pem)
        key = new_key()
        chain = root.sign(
            public_key_of_csr(new_csr(key)),
            node_id=new_id(),
            role=NodeRole.MANAGER,
            cluster_id=new_id(),
            now=now,
            validity=DEFAULT_VALIDITY,
        )
        files.write_node(chain, key)
        return cls(files, read_material(root.certificate_pem, chain, key, now=now), clock, root.key_pem)

    @classmethod
    async def join(
        cls,
        folder: Path,
        join_addr: str,
        token: str,
        *,
        availability: NodeSpec.Availability.ValueType = NodeSpec.ACTIVE,
        hostname: str = "",
        join_methods: Mapping[str, JoinMethod] | None = None,
        clock: Clock | None = None,
    ) -> SecurityConfig:
        """Get a first certificate from the manager at `join_addr`, waiting for as long as the node is PENDING.

        Raises ConfigurationError in one line: no manager answers there, another root CA than the token names, a
        wrong or old token, a rejected node. What was asked for is on disk, so after a kill this asks on.
        """
        del hostname  # managers learn it with the node's description
        files = CertificateFolder(folder)
        files.create()
        clock = clock or SystemClock()
        root_pem, chain, key = await joining.join(
            files, join_addr, token, availability=availability, join_methods=join_methods or {}, clock=clock
        )
        material = read_material(root_pem, chain, key, now=clock.now())
        unlock_key = None
        if material.identity.role == NodeRole.MANAGER:
            unlock_key = await joining.fetch_unlock_key(join_addr, lambda: _channel(join_addr, material), clock)
        files.write_node(chain, key, unlock_key)
        files.forget_join_attempt()
        return cls(files, material, clock)

    # What it says

    @property
    def material(self) -> Material:
        return self._material

    @property
    def node_id(self) -> str:
        return self._material.identity.node_id

    @property
    def role(self) -> NodeRole.ValueType:
        return self._material.identity.role

    @property
    def cluster_id(self) -> str:
        return self._material.identity.cluster_id

    @property
    def root(self) -> RootCA:
        """The root that this node trusts, without its key."""
        return self._material.root

    @property
    def root_with_key(self) -> RootCA | None:
        """The root with its key, on the manager that made the cluster, until the cluster's first write."""
        return None if self._root_key is None else RootCA(self.root.certificate_pem, self._root_key)

    @property
    def is_expired(self) -> bool:
        """Whether TLS peers refuse this node's certificate by now."""
        return self._clock.now() > self._material.not_after

    @property
    def serial(self) -> int:
        """Counts the certificates and roots since the start."""
        return self._serial

    def tls_info(self) -> NodeTLSInfo:
        """What a node reports of its certificate."""
        material = self._material
        return NodeTLSInfo(
            trust_root=material.root.certificate_pem,
            cert_issuer_subject=material.issuer.subject,
            cert_issuer_public_key=material.issuer.public_key,
        )

    async def wait_change(self, known: int) -> int:
        """Return `serial` once it differs from `known`."""
        while self._serial == known:
            event = self._changed
            await event.wait()
        return self._serial

    @property
    def secret(self) -> bytes | None:
        """What the private key on disk is sealed with.

        On a manager without a log yet that is the cluster's unlock key, where there is one.
        """
        return self._files.secret

    # Changing it

    def seal_key(self, secret: bytes) -> None:
        """Keep the private key on disk sealed with `secret` from now on. Raises ConfigurationError on a full disk."""
        self._files.seal_key(secret)

    def want_new_key(self) -> None:
        """Have the certificate renewed soon, with a new private key."""
        self._is_new_key_wanted = True
        self._want_new_key()

    def when_new_key_is_wanted(self, act: Callable[[], None]) -> None:
        """Call `act` then; at once where one is wanted already."""
        self._want_new_key = act
        if self._is_new_key_wanted:
            act()

    def forget_root_key(self) -> None:
        """The replicated store has the root's key: remove it from the disk and from here."""
        if self._root_key is not None:
            self._files.forget_root_key()
            self._root_key = None

    def install(self, chain: bytes, key: bytes, unlock_key: bytes | None = None) -> None:
        """Take a new certificate: on disk first, then in use. Raises ConfigurationError and keeps the old one.

        A worker's key stands on the disk in the open: there is nothing to unlock a worker with. `unlock_key` seals
        that of a worker which becomes a manager, until it has a log.
        """
        material = read_material(self.root.certificate_pem, chain, key, now=self._clock.now())
        if (material.identity.node_id, material.identity.cluster_id) != (self.node_id, self.cluster_id):
            raise ConfigurationError("the manager sent the certificate of another node")
        is_manager = material.identity.role == NodeRole.MANAGER
        self._files.write_node(chain, key, (self._files.secret or unlock_key) if is_manager else None)
        self._is_new_key_wanted = False
        self._use(material)

    def install_root(self, root_pem: bytes) -> None:
        """Trust another root bundle. Raises ConfigurationError unless this node's certificate is valid under it."""
        if root_pem == self.root.certificate_pem:
            return
        old = self._material
        material = read_material(root_pem, old.chain_pem, old.key_pem, now=self._clock.now(), allow_expired=True)
        self._files.write_root(root_pem)
        self._use(material)

    def _use(self, material: Material) -> None:
        self._material = material
        self._serial += 1
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def renew(self, open_channel: Callable[[], Awaitable[grpc.aio.Channel]]) -> None:
        """Get a new certificate with a new key from a manager; the channel is closed.

        `open_channel` gives one on which this node is known: a manager's own control socket, or what
        `self.open_channel` opens. A worker that becomes a manager learns the unlock key before anything is written.
        Raises RefusedError (a ConfigurationError) and UnavailableError.
        """
        key = new_key()
        csr = new_csr(key)
        old = self._material
        proof = make_proof(old.chain_pem, old.key_pem, csr) if self.is_expired else ""
        channel = await open_channel()
        try:
            asked = request.CertificateRequest(csr=csr, token=proof, role=self.role)
            node_id, _ = await request.ask(channel, asked)
            chain = await request.wait_certificate(
                channel,
                node_id=node_id,
                csr=csr,
                clock=self._clock,
                is_waiting=lambda: log.info("waiting for a new certificate"),
            )
        finally:
            await request.close_quietly(channel)
        unlock_key = None
        if self.role == NodeRole.WORKER and self._dialled:
            material = read_material(self.root.certificate_pem, chain, key, now=self._clock.now())
            if material.identity.role == NodeRole.MANAGER:
                unlock_key = await request.fetch_unlock_key(_channel(self._dialled, material))
        self.install(chain, key, unlock_key)
        log.info("renewed the certificate of node %s as a %s", self.node_id, NodeRole.Name(self.role).lower())

    def renew_locally(self, root: RootCA) -> None:
        """Sign a new certificate for this manager with the root's key, out of its own copy of the store.

        For a manager whose certificate has expired: no other manager talks to it any more, and after a power-off of
        the whole cluster they are all in this state. Raises ConfigurationError for the key of another root.
        """
        if self.role != NodeRole.MANAGER:
            raise ConfigurationError("only a manager may sign its own certificate")
        key = new_key()
        chain = root.sign(
            public_key_of_csr(new_csr(key)),
            node_id=self.node_id,
            role=self.role,
            cluster_id=self.cluster_id,
            now=self._clock.now(),
        )
        self.install(chain, key)
        log.warning("signed the expired certificate of manager %s anew with the cluster's own root key", self.node_id)

    # Credentials

    def open_channel(self, address: str) -> grpc.aio.Channel:
        """A channel to the manager at `host:port`, with the certificate of now.

        An expired one is not shown: TLS would refuse the connection, and without it a renewal still works.
        """
        self._dialled = address
        if self.is_expired:
            return anonymous_channel(address, self.root.certificate_pem)
        return _channel(address, self._material)

    def open_watched_channel(self, address: str) -> grpc.aio.Channel:
        """The same, for streams to managers: a connection that swallows everything is noticed within seconds."""
        if self.is_expired:
            return self.open_channel(address)
        return _channel(address, self._material, is_watched=True)

    def open_anonymous_channel(self, address: str) -> grpc.aio.Channel:
        """A channel to the manager at `host:port` that trusts it and shows no certificate."""
        return anonymous_channel(address, self.root.certificate_pem)

    def server_credentials(self, *, ask_for_certificate: bool) -> grpc.ServerCredentials:
        """Credentials that always show the certificate of now. Callers' certificates are demanded, or not asked for."""
        used = self._material

        def configuration(material: Material) -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration(
                [(material.key_pem, material.chain_pem)], root_certificates=material.root.certificate_pem
            )

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC before each handshake, in a thread of its own.
            nonlocal used
            material = self._material
            if material is used:
                return None
            used = material
            return configuration(material)

        return grpc.dynamic_ssl_server_credentials(
            configuration(used),
            fetch,  # type: ignore[arg-type]  # the stubs do not know that None means no change
            require_client_authentication=ask_for_certificate,
        )


def _channel(address: str, material: Material, *, is_watched: bool = False) -> grpc.aio.Channel:
    return authenticated_channel(
        address, material.root.certificate_pem, material.key_pem, material.chain_pem, is_watched=is_watched
    )
