"""What the control service asks of the CA (it satisfies `controlapi.cluster_ops.ClusterOps`)."""

from __future__ import annotations

from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import ClusterSpec
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.api.types_pb2 import RootCA as RootCAMessage
from swarmcore.ca.root import RootCA, normalise
from swarmcore.ca.tokens import new_join_token, new_unlock_key
from swarmcore.errors import ConfigurationError, InvalidArgumentError, UnimplementedError
from swarmcore.store.transaction import Transaction

ROTATION = "rotating the root CA is not supported yet: leave signing_ca_cert and force_rotate as they are"


class CAClusterOps:
    """Tokens, unlock keys and root CA settings."""

    def rotate_join_token(self, cluster: Cluster, role: NodeRole.ValueType) -> str:
        """A fresh token for the root that `cluster` has."""
        del role  # a token's role is the field it is kept in
        return new_join_token(RootCA(cluster.root_ca.ca_cert).digest, fips=cluster.fips)

    def new_unlock_key(self) -> bytes:
        return new_unlock_key()

    async def plan_root_ca(self, cluster: Cluster, spec: ClusterSpec) -> RootCAMessage:
        """The root CA under `spec.ca_config`. Raises InvalidArgumentError, and UnimplementedError for a rotation."""
        planned = RootCAMessage()
        planned.CopyFrom(cluster.root_ca)
        wanted = spec.ca_config
        if wanted.signing_ca_key and not wanted.signing_ca_cert:
            raise InvalidArgumentError("ca_config.signing_ca_key is given without signing_ca_cert: give both")
        if wanted.signing_ca_cert:
            try:
                root = RootCA(wanted.signing_ca_cert, wanted.signing_ca_key or None)
                is_current = normalise(wanted.signing_ca_cert) == normalise(cluster.root_ca.ca_cert)
            except ConfigurationError as error:
                raise InvalidArgumentError(f"ca_config.signing_ca_cert: {error}") from None
            if not is_current:
                raise UnimplementedError(ROTATION)
            if root.key_pem is not None:
                planned.ca_key = root.key_pem
        elif wanted.force_rotate != cluster.root_ca.last_forced_rotation:
            raise UnimplementedError(ROTATION)
        return planned

    def record_removed_node(self, tx: Transaction, node: Node) -> None:
        """Nothing to write: a certificate is worth something only while the store has its node.

        SwarmKit keeps a list inside the cluster object, which grows until the object can't be written any more.
        """
        del tx, node
