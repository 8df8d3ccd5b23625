"""Secrets, configs, volumes, networks and the cluster (SwarmKit: 2.2, 2.6 to 2.9)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from swarmcore.api.specs_pb2 import ClusterSpec, ConfigSpec, NetworkSpec, SecretSpec, VolumeSpec
from swarmcore.api.types_pb2 import Driver, IPAMConfig
from swarmcore.controlapi.validate.bounds import duration_nanoseconds
from swarmcore.controlapi.validate.names import check_annotations, check_free_name, check_secret_name
from swarmcore.errors import InvalidArgumentError, PermissionDeniedError

MAX_SECRET_BYTES = 512_000
MAX_CONFIG_BYTES = 1_024_000
MIN_CERTIFICATE_NANOSECONDS = 3_600 * 1_000_000_000
PREDEFINED_LABEL = "com.docker.swarm.predefined"
CLUSTER_NAME = "default"


def check_secret(spec: SecretSpec) -> None:
    check_secret_name(spec.annotations.name)
    _check_templating(spec.templating)
    if spec.HasField("driver"):
        if not spec.driver.name:
            raise InvalidArgumentError("secret driver must have a name: driver.name is empty")
        return
    if not 0 < len(spec.data) < MAX_SECRET_BYTES:
        raise InvalidArgumentError(f"secret data must be larger than 0 and less than {MAX_SECRET_BYTES} bytes")


def check_config(spec: ConfigSpec) -> None:
    check_secret_name(spec.annotations.name)
    _check_templating(spec.templating)
    if not 0 < len(spec.data) < MAX_CONFIG_BYTES:
        raise InvalidArgumentError(f"config data must be larger than 0 and less than {MAX_CONFIG_BYTES} bytes")


def _check_templating(driver: Driver) -> None:
    if driver.name not in ("", "golang"):
        raise InvalidArgumentError(f"unrecognized template type: templating.name {driver.name!r} must be golang")


def check_volume(spec: VolumeSpec) -> None:
    if not spec.HasField("driver") or not spec.driver.name:
        raise InvalidArgumentError("driver must be specified: driver.name is empty")
    check_free_name(spec.annotations.name)
    if not spec.HasField("access_mode"):
        raise InvalidArgumentError("AccessMode must not be nil: access_mode is missing")
    if spec.access_mode.WhichOneof("access_type") is None:
        raise InvalidArgumentError("Volume AccessMode must specify either Mount or Block: access_mode.access_type")


def check_network(spec: NetworkSpec) -> None:
    if spec.ingress and spec.attachable:
        raise InvalidArgumentError("ingress network cannot be attachable: unset attachable")
    check_annotations(spec.annotations)
    if PREDEFINED_LABEL in spec.annotations.labels:
        raise PermissionDeniedError(f"label {PREDEFINED_LABEL} is for internally created predefined networks only")
    for position, config in enumerate(spec.ipam.configs):
        _check_ipam(config, f"ipam.configs[{position}]")


def _check_ipam(config: IPAMConfig, field: str) -> None:
    if not config.subnet:
        if config.range or config.gateway:
            raise InvalidArgumentError(f"{field}.subnet is missing: range and gateway need one")
        raise InvalidArgumentError(f"ipam configuration: {field}.subnet is empty")
    try:
        subnet = ipaddress.ip_network(config.subnet, strict=False)
    except ValueError:
        raise InvalidArgumentError(
            f"ipam configuration: invalid subnet {config.subnet[:64]!r}: {field}.subnet"
        ) from None
    if config.range:
        try:
            inside = ipaddress.ip_interface(config.range).ip in subnet and "/" in config.range
        except ValueError:
            inside = False
        if not inside:
            raise InvalidArgumentError(
                f"ipam configuration: {field}.range {config.range[:64]!r} is not within the subnet"
            )
    if config.gateway:
        try:
            inside = ipaddress.ip_address(config.gateway) in subnet
        except ValueError:
            inside = False
        if not inside:
            raise InvalidArgumentError(
                f"ipam configuration: {field}.gateway {config.gateway[:64]!r} is not within the subnet"
            )


def check_cluster(spec: ClusterSpec) -> None:
    if spec.annotations.name != CLUSTER_NAME:
        raise InvalidArgumentError("modification of cluster name is not allowed: annotations.name must stay 'default'")
    expiry = spec.ca_config.node_cert_expiry
    if spec.ca_config.HasField("node_cert_expiry") and duration_nanoseconds(expiry) < MIN_CERTIFICATE_NANOSECONDS:
        raise InvalidArgumentError("minimum certificate expiry time is: 1h0m0s: ca_config.node_cert_expiry")
    for policy in spec.acceptance_policy.policies:
        if policy.HasField("secret") and policy.secret.alg.lower() != "bcrypt":
            raise InvalidArgumentError("hashing algorithm is not supported: acceptance_policy.policies.secret.alg")
    if duration_nanoseconds(spec.dispatcher.heartbeat_period) < 0:
        raise InvalidArgumentError("heartbeat time period cannot be a negative duration: dispatcher.heartbeat_period")
    for external in spec.ca_config.external_cas:
        if not external.url:
            raise InvalidArgumentError("ca_config.external_cas.url is empty")


def only_labels_changed(name: str, old_name: str, data: bytes, old_data: bytes) -> None:
    """The rule for an update of a secret or a config."""
    if name != old_name or (data and data != old_data):
        raise InvalidArgumentError("only updates to Labels are allowed: make a new one for another name or data")


def check_volume_update(old: VolumeSpec, new: VolumeSpec) -> None:
    unchanging: Mapping[str, str] = {
        "group": "Group",
        "AccessibilityRequirements": "AccessibilityRequirements",
        "driver": "Driver",
        "access_mode": "AccessMode",
        "capacity_range": "CapacityRange",
    }
    if old.annotations.name != new.annotations.name:
        raise InvalidArgumentError("Name cannot be updated: annotations.name")
    for field, title in unchanging.items():
        if getattr(old, field) != getattr(new, field):
            raise InvalidArgumentError(f"{title} cannot be updated: {field}")
    if list(old.secrets) != list(new.secrets):
        raise InvalidArgumentError("Secrets cannot be updated: secrets")
