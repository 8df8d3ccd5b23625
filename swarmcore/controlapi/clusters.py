"""The cluster object: read it without its keys, change its settings, rotate tokens and keys (SwarmKit: 2.2, 10.6)."""

from __future__ import annotations

from swarmcore.api import brake
from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import ClusterSpec
from swarmcore.api.types_pb2 import EncryptionKey, NodeRole
from swarmcore.controlapi.calls import Calls, not_found, require_version
from swarmcore.controlapi.redact import public_cluster
from swarmcore.controlapi.select import candidates, common_predicates, fill, matching, spec_name
from swarmcore.controlapi.validate.bounds import check_id, check_request
from swarmcore.controlapi.validate.objects import check_cluster
from swarmcore.errors import InvalidArgumentError, SequenceConflictError
from swarmcore.store.transaction import Transaction

MANAGER_SUBSYSTEM = "swarm-manager"
"""As SwarmKit names the key that wraps what managers keep on disk."""
REMOVED_NODE_GRACE_SECONDS = 7 * 24 * 3600


class ClusterCalls(Calls):
    async def GetCluster(self, request: pb.GetClusterRequest, context: object) -> pb.GetClusterResponse:
        cluster = self.store.view.cluster.get(check_id(request.cluster_id, "cluster_id"))
        if cluster is None:
            raise not_found("cluster", request.cluster_id)
        return pb.GetClusterResponse(cluster=public_cluster(cluster))

    async def ListClusters(self, request: pb.ListClustersRequest, context: object) -> pb.ListClustersResponse:
        check_request(request)
        filters = request.filters
        predicates = common_predicates(filters, spec_name, lambda cluster: cluster.spec.annotations.labels)
        response = pb.ListClustersResponse()
        clusters = await matching(candidates(self.store.view.cluster, filters), predicates)
        await fill(response.clusters, clusters, public_cluster)
        return response

    async def UpdateCluster(self, request: pb.UpdateClusterRequest, context: object) -> pb.UpdateClusterResponse:
        check_request(request)
        cluster_id = check_id(request.cluster_id, "cluster_id")
        version = require_version(request.HasField("cluster_version"), request.cluster_version, "cluster_version")
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")
        current = self.store.view.cluster.get(cluster_id)
        releases = request.spec.annotations.labels.get(brake.LABEL) == brake.RELEASE
        if releases:
            _keep_setting(request.spec, current)
        check_cluster(request.spec)
        if current is None:
            raise not_found("cluster", cluster_id)
        if current.meta.version.index != version:
            raise SequenceConflictError
        # May ask external CAs; that the cluster stayed as it was is checked by its version, inside the transaction.
        root_ca = await self.cluster_ops.plan_root_ca(current, request.spec)

        def write(tx: Transaction) -> Cluster:
            old = tx.cluster.get(cluster_id)
            if old is None:
                raise not_found("cluster", cluster_id)
            cluster = Cluster()
            cluster.CopyFrom(old)
            cluster.meta.version.index = version
            cluster.spec.CopyFrom(request.spec)
            cluster.root_ca.CopyFrom(root_ca)
            self._forget_removed_nodes(cluster)
            self._rotate_tokens(cluster, request.rotation)
            self._lock(cluster, request.rotation.manager_unlock_key)
            tx.cluster.update(cluster)
            if releases:
                _release(tx)
            return cluster

        return pb.UpdateClusterResponse(cluster=public_cluster(await self.store.update(write)))

    def _forget_removed_nodes(self, cluster: Cluster) -> None:
        """Drop entries whose certificate expired more than a week ago; those without an expiry stay."""
        limit = self.clock.now() - REMOVED_NODE_GRACE_SECONDS
        removed = cluster.blacklisted_certificates
        for name in [
            name for name, entry in removed.items() if entry.HasField("expiry") and entry.expiry.ToSeconds() < limit
        ]:
            del removed[name]

    def _rotate_tokens(self, cluster: Cluster, rotation: pb.KeyRotation) -> None:
        tokens = cluster.root_ca.join_tokens
        if rotation.worker_join_token:
            tokens.worker = self.cluster_ops.rotate_join_token(cluster, NodeRole.WORKER)
        if rotation.manager_join_token:
            tokens.manager = self.cluster_ops.rotate_join_token(cluster, NodeRole.MANAGER)

    def _lock(self, cluster: Cluster, rotate: bool) -> None:
        """Keep the unlock key in step with `auto_lock_managers`."""
        keys = [key for key in cluster.unlock_keys if key.subsystem == MANAGER_SUBSYSTEM]
        others = [key for key in cluster.unlock_keys if key.subsystem != MANAGER_SUBSYSTEM]
        if not cluster.spec.encryption_config.auto_lock_managers:
            keys = []
        elif rotate or not keys:
            keys = [EncryptionKey(subsystem=MANAGER_SUBSYSTEM, key=self.cluster_ops.new_unlock_key())]
        fresh = [EncryptionKey.FromString(key.SerializeToString()) for key in (*others, *keys)]
        del cluster.unlock_keys[:]
        cluster.unlock_keys.extend(fresh)


def _keep_setting(spec: ClusterSpec, current: Cluster | None) -> None:
    """The word that releases is no setting: the one before stays."""
    labels = spec.annotations.labels
    del labels[brake.LABEL]
    if current is not None and brake.LABEL in current.spec.annotations.labels:
        labels[brake.LABEL] = current.spec.annotations.labels[brake.LABEL]


def _release(tx: Transaction) -> None:
    """Make nodes that the brake holds ordinary lost ones, whose tasks are replaced."""
    for old in [node for node in tx.node.all() if brake.is_held(node)]:
        node = Node()
        node.CopyFrom(old)
        node.status.message = brake.RELEASED
        tx.node.update(node)
