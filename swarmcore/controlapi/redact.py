"""What leaves a manager: copies of objects without keys and secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarmcore.api.objects_pb2 import Cluster, Secret

DEFAULT_ADDRESS_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_SIZE = 24
DEFAULT_VXLAN_PORT = 4789


def public_cluster(cluster: Cluster) -> Cluster:
    """Only what is listed here is returned: no CA key, no unlock key, no gossip key (SwarmKit: 2.2)."""
    shown = Cluster(id=cluster.id, meta=cluster.meta, spec=cluster.spec, root_ca=cluster.root_ca)
    shown.spec.ca_config.ClearField("signing_ca_key")
    shown.spec.ca_config.ClearField("signing_ca_cert")
    for policy in shown.spec.acceptance_policy.policies:
        policy.ClearField("secret")
    shown.root_ca.ClearField("ca_key")
    if shown.root_ca.HasField("root_rotation"):
        shown.root_ca.root_rotation.ClearField("ca_key")
    for name, entry in cluster.blacklisted_certificates.items():
        shown.blacklisted_certificates[name].CopyFrom(entry)
    shown.defaultAddressPool.extend(cluster.defaultAddressPool or [DEFAULT_ADDRESS_POOL])
    shown.subnetSize = cluster.subnetSize or DEFAULT_SUBNET_SIZE
    shown.VXLANUDPPort = cluster.VXLANUDPPort or DEFAULT_VXLAN_PORT
    return shown


def public_secret(secret: Secret) -> Secret:
    """A secret without its data."""
    shown = Secret(id=secret.id, meta=secret.meta, spec=secret.spec, internal=secret.internal)
    shown.spec.ClearField("data")
    return shown


PUBLIC: Mapping[str, Callable[[Any], Any]] = {"cluster": public_cluster, "secret": public_secret}
"""Tables whose objects are never shown as they are."""
