"""The cluster object: changed by its rules, shown without its keys."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from swarmcore.api import control_pb2 as pb
from swarmcore.api.brake import LABEL, MARK, is_held
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import ClusterSpec
from swarmcore.api.types_pb2 import (
    AcceptancePolicy,
    Annotations,
    CAConfig,
    DispatcherConfig,
    Driver,
    EncryptionConfig,
    EncryptionKey,
    ExternalCA,
    JoinTokens,
    NodeStatus,
    RootCA,
    TaskDefaults,
    Version,
)
from swarmcore.errors import InvalidArgumentError, NotFoundError, SequenceConflictError

Policy = AcceptancePolicy.RoleAdmissionPolicy


def spec(**more: Any) -> ClusterSpec:
    return ClusterSpec(annotations=Annotations(name="default"), **more)


def cluster() -> Cluster:
    made = Cluster(id="c1", spec=spec())
    made.root_ca.CopyFrom(
        RootCA(ca_key=b"KEY", ca_cert=b"CERT", ca_cert_hash="h", join_tokens=JoinTokens(worker="W", manager="M"))
    )
    made.network_bootstrap_keys.append(EncryptionKey(subsystem="networking:gossip", key=b"GOSSIP"))
    return made


async def update(setup: Any, wanted: ClusterSpec, version: int = 1, **rotation: bool) -> Cluster:
    request = pb.UpdateClusterRequest(
        cluster_id="c1", cluster_version=Version(index=version), spec=wanted, rotation=pb.KeyRotation(**rotation)
    )
    changed: Cluster = (await setup.control.UpdateCluster(request, None)).cluster
    return changed


async def test_reading_shows_tokens_and_no_keys(setup: Any) -> None:
    await setup.put(cluster())

    got = (await setup.control.GetCluster(pb.GetClusterRequest(cluster_id="c1"), None)).cluster
    listed = (await setup.control.ListClusters(pb.ListClustersRequest(), None)).clusters

    assert list(listed) == [got]
    assert got.root_ca == RootCA(ca_cert=b"CERT", ca_cert_hash="h", join_tokens=JoinTokens(worker="W", manager="M"))
    assert not got.network_bootstrap_keys
    assert list(got.defaultAddressPool) == ["10.0.0.0/8"]
    assert (got.subnetSize, got.VXLANUDPPort) == (24, 4789)


async def test_listing_by_name(setup: Any) -> None:
    await setup.put(cluster())

    for names, count in ((["default"], 1), (["other"], 0)):
        request = pb.ListClustersRequest(filters=pb.ListClustersRequest.Filters(names=names))
        assert len((await setup.control.ListClusters(request, None)).clusters) == count


HOUR = 3600


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            spec(ca_config=CAConfig(node_cert_expiry=Duration(seconds=HOUR - 1))),
            "minimum certificate expiry time is: 1h0m0s: ca_config.node_cert_expiry",
        ),
        (spec(ca_config=CAConfig(node_cert_expiry=Duration(seconds=-HOUR))), "ca_config.node_cert_expiry"),
        (spec(ca_config=CAConfig(node_cert_expiry=Duration(seconds=2**40))), "spec.ca_config.node_cert_expiry"),
        (spec(ca_config=CAConfig(external_cas=[ExternalCA()])), "ca_config.external_cas.url is empty"),
        (
            spec(acceptance_policy=AcceptancePolicy(policies=[Policy(secret=Policy.Secret(alg="md5"))])),
            "hashing algorithm is not supported",
        ),
        (
            spec(dispatcher=DispatcherConfig(heartbeat_period=Duration(seconds=-1))),
            "heartbeat time period cannot be a negative duration: dispatcher.heartbeat_period",
        ),
        (spec(dispatcher=DispatcherConfig(heartbeat_period=Duration(nanos=1))), "dispatcher.heartbeat_period must be"),
        (spec(dispatcher=DispatcherConfig(heartbeat_period=Duration(seconds=3601))), "dispatcher.heartbeat_period"),
        (
            spec(task_defaults=TaskDefaults(log_driver=Driver(name="a\x1b[2J"))),
            "task_defaults.log_driver.name 'a?[2J' must be printable",
        ),
        (ClusterSpec(), "modification of cluster name is not allowed"),
        (ClusterSpec(annotations=Annotations(name="other")), "modification of cluster name is not allowed"),
    ],
)
async def test_what_a_cluster_cannot_be(setup: Any, wanted: ClusterSpec, text: str) -> None:
    await setup.put(cluster())

    await setup.refused(update(setup, wanted), InvalidArgumentError, text)


async def test_what_an_update_needs(setup: Any) -> None:
    await setup.put(cluster())

    for fields, text in (
        ({"cluster_version": Version(index=1), "spec": spec()}, "cluster_id is empty"),
        ({"cluster_id": "c1", "spec": spec()}, "cluster_version is missing"),
        ({"cluster_id": "c1", "cluster_version": Version(index=1)}, "spec is missing"),
    ):
        request = pb.UpdateClusterRequest(**fields)
        await setup.refused(setup.control.UpdateCluster(request, None), InvalidArgumentError, text)
    await setup.refused(update(setup, spec(), version=9), SequenceConflictError, "update out of sequence")
    request = pb.UpdateClusterRequest(cluster_id="c2", cluster_version=Version(index=1), spec=spec())
    await setup.refused(setup.control.UpdateCluster(request, None), NotFoundError, "cluster c2 not found")
    request_without = pb.GetClusterRequest()
    await setup.refused(setup.control.GetCluster(request_without, None), InvalidArgumentError, "cluster_id is empty")


async def test_tokens_are_rotated_one_at_a_time(setup: Any) -> None:
    await setup.put(cluster())

    changed = await update(setup, spec(), worker_join_token=True)
    again = await update(setup, spec(), version=2, manager_join_token=True)

    assert changed.root_ca.join_tokens.worker == "SWMTKN-1-fresh-worker-1"
    assert changed.root_ca.join_tokens.manager == "M"
    assert again.root_ca.join_tokens.worker == "SWMTKN-1-fresh-worker-1"
    assert again.root_ca.join_tokens.manager == "SWMTKN-1-fresh-manager-2"
    assert setup.store.view.cluster.get("c1").root_ca.ca_key == b"KEY"


def unlock_keys(setup: Any) -> list[bytes]:
    return [key.key for key in setup.store.view.cluster.get("c1").unlock_keys if key.subsystem == "swarm-manager"]


async def test_the_unlock_key_follows_autolock(setup: Any) -> None:
    await setup.put(cluster())
    locked = spec(encryption_config=EncryptionConfig(auto_lock_managers=True))

    shown = await update(setup, locked)
    assert unlock_keys(setup) == [b"unlock-key-1"]
    assert not shown.unlock_keys
    await update(setup, locked, version=2)
    assert unlock_keys(setup) == [b"unlock-key-1"]
    await update(setup, locked, version=3, manager_unlock_key=True)
    assert unlock_keys(setup) == [b"unlock-key-2"]
    await update(setup, spec(), version=4, manager_unlock_key=True)
    assert unlock_keys(setup) == []


async def test_entries_of_removed_nodes_end_a_week_after_their_certificates(setup: Any) -> None:
    made = cluster()
    now = 1_700_000_000
    made.blacklisted_certificates["old"].expiry.seconds = now - 8 * 86_400
    made.blacklisted_certificates["recent"].expiry.seconds = now - 6 * 86_400
    made.blacklisted_certificates["endless"].SetInParent()
    await setup.put(made)

    changed = await update(setup, spec())

    assert sorted(changed.blacklisted_certificates) == ["endless", "recent"]


async def test_what_the_brake_is_set_to_is_checked(setup: Any) -> None:
    await setup.put(cluster())
    good, bad = spec(), spec()
    good.annotations.labels[LABEL] = "share=30,wait=1h"
    bad.annotations.labels[LABEL] = "share=all"

    changed = await update(setup, good)

    assert changed.spec.annotations.labels[LABEL] == "share=30,wait=1h"
    with pytest.raises(InvalidArgumentError, match=r"the brake's share .*annotations.labels\['swarmcore.brake'\]"):
        await update(setup, bad, changed.meta.version.index)


async def test_releasing_the_brake_lets_every_held_node_go_and_keeps_the_setting(setup: Any) -> None:
    held = Node(id="held", status=NodeStatus(state=NodeStatus.DOWN, message=f"{MARK}: so many"))
    up = Node(id="up", status=NodeStatus(state=NodeStatus.READY))
    first = cluster()
    first.spec.annotations.labels[LABEL] = "wait=0"
    await setup.put(first, held, up)
    release = spec()
    release.annotations.labels[LABEL] = "release"

    before = is_held(setup.store.view.node.get("held"))
    changed = await update(setup, release)

    assert before
    assert changed.spec.annotations.labels[LABEL] == "wait=0"
    now = setup.store.view.node.get("held")
    assert (is_held(now), now.status.message, now.status.state) == (False, "heartbeat failure", NodeStatus.DOWN)
