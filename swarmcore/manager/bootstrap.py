"""What the first leader of a cluster writes down before anything else: the cluster itself, and its own node."""

from __future__ import annotations

from dataclasses import dataclass

from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import Certificate, IssuanceStatus, JoinTokens, NodeRole
from swarmcore.ca.server import MANAGER_SUBSYSTEM
from swarmcore.ca.tokens import new_unlock_key, rotate_join_tokens
from swarmcore.store.transaction import Transaction

CLUSTER_NAME = "default"
TASK_HISTORY_LIMIT = 5
HEARTBEAT_SECONDS = 5
CERTIFICATE_EXPIRY_SECONDS = 2160 * 3600
SNAPSHOT_INTERVAL = 10_000
ENTRIES_FOR_SLOW_FOLLOWERS = 500


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Founder:
    """The manager that starts a cluster, and what it alone knows."""

    node_id: str
    cluster_id: str
    certificate: bytes
    root_certificate: bytes
    root_key: bytes | None
    """None once the replicated cluster object holds it."""
    root_digest: str
    """SHA-256 in hexadecimal."""
    autolock: bool = False
    """Whether the new cluster's managers are locked."""
    unlock_key: bytes | None = None
    """What they are locked with; None: a fresh key."""
    heartbeat_tick: int = 1
    election_tick: int = 10


def ensure_cluster(tx: Transaction, founder: Founder) -> None:
    """Create the cluster object and the node of `founder` where they are missing. Does nothing the second time."""
    if tx.cluster.get(founder.cluster_id) is None:
        tx.cluster.create(new_cluster(founder))
    if tx.node.get(founder.node_id) is None:
        tx.node.create(_own_node(founder))


def new_cluster(founder: Founder) -> Cluster:
    """A cluster with SwarmKit's defaults (SwarmKit: 2.2, 14)."""
    cluster = Cluster(id=founder.cluster_id)
    spec = cluster.spec
    spec.annotations.name = CLUSTER_NAME
    spec.orchestration.task_history_retention_limit = TASK_HISTORY_LIMIT
    spec.raft.snapshot_interval = SNAPSHOT_INTERVAL
    spec.raft.log_entries_for_slow_followers = ENTRIES_FOR_SLOW_FOLLOWERS
    spec.raft.heartbeat_tick = founder.heartbeat_tick
    spec.raft.election_tick = founder.election_tick
    spec.dispatcher.heartbeat_period.seconds = HEARTBEAT_SECONDS
    spec.ca_config.node_cert_expiry.seconds = CERTIFICATE_EXPIRY_SECONDS
    if founder.autolock:
        spec.encryption_config.auto_lock_managers = True
        cluster.unlock_keys.add(subsystem=MANAGER_SUBSYSTEM, key=founder.unlock_key or new_unlock_key())
    root = cluster.root_ca
    root.ca_cert = founder.root_certificate
    root.ca_key = founder.root_key or b""
    root.ca_cert_hash = f"sha256:{founder.root_digest}"
    root.join_tokens.CopyFrom(
        rotate_join_tokens(JoinTokens(), ca_digest=founder.root_digest, worker=True, manager=True)
    )
    return cluster


def _own_node(founder: Founder) -> Node:
    return Node(
        id=founder.node_id,
        role=NodeRole.MANAGER,
        spec=NodeSpec(desired_role=NodeRole.MANAGER, membership=NodeSpec.ACCEPTED),
        certificate=Certificate(
            role=NodeRole.MANAGER,
            cn=founder.node_id,
            status=IssuanceStatus(state=IssuanceStatus.ISSUED),
            certificate=founder.certificate,
        ),
    )
