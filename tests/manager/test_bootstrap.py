"""What the first leader writes down."""

from __future__ import annotations

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.manager.bootstrap import Founder, ensure_cluster
from swarmcore.testing.store import running_store

FOUNDER = Founder(
    node_id="node",
    cluster_id="cluster",
    certificate=b"chain",
    root_certificate=b"root",
    root_key=b"key",
    root_digest="ab" * 32,
)


async def test_a_new_cluster_has_swarmkits_defaults_and_its_first_manager() -> None:
    async with running_store() as store:
        await store.update(lambda tx: ensure_cluster(tx, FOUNDER))

        cluster = store.view.cluster.get("cluster")
        node = store.view.node.get("node")
    assert cluster is not None
    assert node is not None
    assert cluster.spec.annotations.name == "default"
    assert cluster.spec.orchestration.task_history_retention_limit == 5
    assert cluster.spec.dispatcher.heartbeat_period.seconds == 5
    assert cluster.spec.ca_config.node_cert_expiry.seconds == 2160 * 3600
    assert cluster.root_ca.ca_key == b"key"
    assert cluster.root_ca.join_tokens.worker.startswith("SWMTKN-1-")
    assert cluster.root_ca.join_tokens.worker != cluster.root_ca.join_tokens.manager
    assert node.role == node.spec.desired_role == NodeRole.MANAGER


async def test_the_second_term_changes_nothing() -> None:
    async with running_store() as store:
        await store.update(lambda tx: ensure_cluster(tx, FOUNDER))
        before = store.view.cluster.get("cluster")
        await store.update(lambda tx: ensure_cluster(tx, FOUNDER))

        assert store.view.cluster.get("cluster") is before
