"""What leaves a manager: copies of objects without keys and secrets.

A registry's login in a service's spec is given to the nodes that pull the image, and shown to nobody. Who reads a spec,
changes it and sends it back sends what stands in the login's place, which means: as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarmcore.api.objects_pb2 import Cluster, Secret, Service, Task
from swarmcore.api.specs_pb2 import ServiceSpec
from swarmcore.controlapi.validate.image import registry_of

DEFAULT_ADDRESS_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_SIZE = 24
DEFAULT_VXLAN_PORT = 4789
HIDDEN = "(hidden)"
"""Instead of a registry's login."""


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


def public_service(service: Service) -> Service:
    """A service without its registry's login; itself where it has none."""
    if not (service.spec.task.container.pull_options.registry_auth or _has_old_login(service)):
        return service
    shown = Service()
    shown.CopyFrom(service)
    for spec in (shown.spec, shown.previous_spec):
        if spec.task.container.pull_options.registry_auth:
            spec.task.container.pull_options.registry_auth = HIDDEN
    return shown


def _has_old_login(service: Service) -> bool:
    return bool(service.previous_spec.task.container.pull_options.registry_auth)


def public_task(task: Task) -> Task:
    """A task without its registry's login; itself where it has none."""
    if not task.spec.container.pull_options.registry_auth:
        return task
    shown = Task()
    shown.CopyFrom(task)
    shown.spec.container.pull_options.registry_auth = HIDDEN
    return shown


def with_login(spec: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """A spec that was sent, with the login of `old` where its place is taken; itself where it is not.

    A login is for the registry that it was given for: an image of another one is pulled without.
    """
    if spec.task.container.pull_options.registry_auth != HIDDEN:
        return spec
    whole = ServiceSpec()
    whole.CopyFrom(spec)
    container, before = whole.task.container, old.task.container
    is_same = registry_of(container.image) == registry_of(before.image)
    container.pull_options.registry_auth = before.pull_options.registry_auth if is_same else ""
    return whole


PUBLIC: Mapping[str, Callable[[Any], Any]] = {
    "cluster": public_cluster,
    "secret": public_secret,
    "service": public_service,
    "task": public_task,
}
"""Tables whose objects are never shown as they are."""
