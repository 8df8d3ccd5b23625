"""Secrets, configs, volumes, networks and the cluster (SwarmKit: 2.2, 2.6 to 2.9)."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

from swarmcore.api.brake import LABEL as BRAKE_LABEL
from swarmcore.api.brake import parse_brake
from swarmcore.api.specs_pb2 import ClusterSpec, ConfigSpec, NetworkSpec, SecretSpec, VolumeSpec
from swarmcore.api.types_pb2 import Driver, IPAMConfig
from swarmcore.controlapi.validate.bounds import brief, duration_nanoseconds
from swarmcore.controlapi.validate.names import check_annotations, check_free_name, check_secret_name
from swarmcore.errors import InvalidArgumentError, PermissionDeniedError

MAX_SECRET_BYTES = 512_000
MAX_CONFIG_BYTES = 1_024_000
MIN_CERTIFICATE_NANOSECONDS = 3_600 * 1_000_000_000
MIN_HEARTBEAT_NANOSECONDS = 100 * 1_000_000
MAX_HEARTBEAT_NANOSECONDS = 3_600 * 1_000_000_000
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
        raise InvalidArgumentError(f"unrecognized template type: templating.name {brief(driver.name)!r} must be golang")


def check_volume(spec: VolumeSpec) -> None:
    if not spec.HasField("driver") or not spec.driver.name:
        raise InvalidArgumentError("driver must be specified: driver.name is empty")
    check_free_name(spec.annotations.name)
    if not spec.HasField("access_mode"):
        raise InvalidArgumentError("AccessMode must not be nil: access_mode is missing")
    if spec.access_mode.WhichOneof("access_type") is None:
        raise InvalidArgumentError("Volume AccessMode must specify either Mount or Block: access_mode.access_type")
    capacity = spec.capacity_range
    if capacity.required_bytes < 0 or capacity.limit_bytes < 0:
        raise InvalidArgumentError("capacity_range cannot be negative: capacity_range")
    if 0 < capacity.limit_bytes < capacity.required_bytes:
        raise InvalidArgumentError("capacity_range.limit_bytes is less than capacity_range.required_bytes")


def check_network(spec: NetworkSpec) -> None:
    if spec.ingress and spec.attachable:
        raise InvalidArgumentError("ingress network cannot be attachable: unset attachable")
    check_annotations(spec.annotations)
    if PREDEFINED_LABEL in spec.annotations.labels:
        raise PermissionDeniedError(f"label {PREDEFINED_LABEL} is for internally created predefined networks only")
    if spec.HasField("driver_config"):
        raise _no_provider(spec.driver_config, "driver_config")
    if spec.ipam.HasField("driver"):
        raise _no_provider(spec.ipam.driver, "ipam.driver")
    for position, config in enumerate(spec.ipam.configs):
        _check_ipam(config, f"ipam.configs[{position}]")


def _no_provider(driver: Driver, field: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"plugin {brief(driver.name)!r} not supported: there is no network provider here: leave {field} out"
    )


def _check_ipam(config: IPAMConfig, field: str) -> None:
    subnet = _network(config.subnet)
    if subnet is None:
        raise InvalidArgumentError(
            f"ipam configuration: invalid subnet {brief(config.subnet)!r}: {field}.subnet must be like 10.1.0.0/16"
        )
    if config.range:
        inner = _network(config.range)
        if inner is None or inner.network_address not in subnet:
            raise InvalidArgumentError(
                f"ipam configuration: invalid range {brief(config.range)!r}: {field}.range must be in {subnet}"
            )
    if config.gateway:
        try:
            is_inside = ipaddress.ip_address(config.gateway) in subnet
        except ValueError:
            is_inside = False
        if not is_inside:
            raise InvalidArgumentError(
                f"ipam configuration: invalid gateway {brief(config.gateway)!r}: {field}.gateway must be in {subnet}"
            )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A CIDR such as 10.1.0.0/16; what stands after the prefix may be set, as Go allows."""
    _, slash, bits = text.partition("/")
    if not slash or not bits.isdecimal() or not bits.isascii() or "%" in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def check_cluster(spec: ClusterSpec) -> None:
    expiry = spec.ca_config.node_cert_expiry
    if spec.ca_config.HasField("node_cert_expiry") and duration_nanoseconds(expiry) < MIN_CERTIFICATE_NANOSECONDS:
        raise InvalidArgumentError("minimum certificate expiry time is: 1h0m0s: ca_config.node_cert_expiry")
    for policy in spec.acceptance_policy.policies:
        if policy.HasField("secret") and policy.secret.alg.lower() != "bcrypt":
            raise InvalidArgumentError("hashing algorithm is not supported: acceptance_policy.policies.secret.alg")
    heartbeat = duration_nanoseconds(spec.dispatcher.heartbeat_period)
    if heartbeat < 0:
        raise InvalidArgumentError("heartbeat time period cannot be a negative duration: dispatcher.heartbeat_period")
    if heartbeat and not MIN_HEARTBEAT_NANOSECONDS <= heartbeat <= MAX_HEARTBEAT_NANOSECONDS:
        raise InvalidArgumentError("dispatcher.heartbeat_period must be between 100ms and 1h, or 0 for the default")
    try:
        parse_brake(spec.annotations.labels.get(BRAKE_LABEL, ""))
    except ValueError as error:
        raise InvalidArgumentError(f"{error}: annotations.labels[{BRAKE_LABEL!r}]") from None
    if spec.annotations.name != CLUSTER_NAME:
        raise InvalidArgumentError("modification of cluster name is not allowed: annotations.name must stay 'default'")
    if spec.task_defaults.log_driver.name:
        check_free_name(spec.task_defaults.log_driver.name, "task_defaults.log_driver.name")
    for external in spec.ca_config.external_cas:
        if not external.url:
            raise InvalidArgumentError("ca_config.external_cas.url is empty")


def only_labels_changed(name: str, old_name: str, data: bytes, old_data: bytes) -> None:
    """The rule for an update of a secret or a config."""
    if name != old_name or (data and not hmac.compare_digest(data, old_data)):
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
