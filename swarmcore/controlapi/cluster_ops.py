"""What the control service asks of the packages beside it: raft members, the CA, the record of removed nodes."""

from __future__ import annotations

from typing import Protocol

from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import ClusterSpec
from swarmcore.api.types_pb2 import NodeRole, RootCA
from swarmcore.store.transaction import Transaction


class MemberLike(Protocol):
    """One manager, as the raft membership knows it."""

    @property
    def raft_id(self) -> int: ...
    @property
    def node_id(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def reachability(self) -> int:
        """A value of RaftMemberStatus.Reachability."""
        ...

    @property
    def is_leader(self) -> bool: ...


class ClusterOps(Protocol):
    """What the CA does for UpdateCluster and RemoveNode."""

    def rotate_join_token(self, cluster: Cluster, role: NodeRole.ValueType) -> str:
        """A new join token for `role`, for the root certificate that `cluster` has. Changes nothing."""
        ...

    def new_unlock_key(self) -> bytes:
        """32 random bytes."""
        ...

    async def plan_root_ca(self, cluster: Cluster, spec: ClusterSpec) -> RootCA:
        """The root CA that `cluster` has once `spec.ca_config` is in force; equal to the present one where nothing
        changes. May ask external CAs, each within 5 s. Raises InvalidArgumentError (SwarmKit: 10.6).
        """
        ...

    def record_removed_node(self, tx: Transaction, node: Node) -> None:
        """Write down, in this transaction, that the certificate of `node` is worth nothing any more."""
        ...
