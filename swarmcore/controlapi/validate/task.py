"""The task half of a service's spec: runtime, resources, restart, placement, references (SwarmKit: 2.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from swarmcore.api.specs_pb2 import ContainerSpec, GenericRuntimeSpec, TaskSpec
from swarmcore.api.types_pb2 import (
    Annotations,
    ConfigReference,
    HealthConfig,
    Privileges,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SecretReference,
)
from swarmcore.controlapi.validate.bounds import brief, duration_nanoseconds
from swarmcore.controlapi.validate.image import is_image_reference
from swarmcore.controlapi.validate.names import check_free_name
from swarmcore.controlapi.validate.templates import check_templates
from swarmcore.errors import InvalidArgumentError, UnimplementedError
from swarmcore.plugin import constraints
from swarmcore.plugin.containers import is_health_test

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY_BYTES = 4 * 1024 * 1024
MIN_HEALTH_NANOSECONDS = 1_000_000

MIN_KIND_CHARACTERS = 3
MAX_KIND_CHARACTERS = 64
MAX_PATH_CHARACTERS = 4096
"""As Linux has it."""
MAX_OOM_SCORE = 1000
MAX_SWAPPINESS = 100


def check_task_spec(spec: TaskSpec, service: Annotations) -> None:
    """Every rule that needs the spec alone, and the name and labels of its service for the templates."""
    for part, resources in (("limits", spec.resources.limits), ("reservations", spec.resources.reservations)):
        check_resources(resources, f"task.resources.{part}")
    for resource in spec.resources.reservations.generic:
        if not resource.HasField("discrete_resource_spec"):
            raise InvalidArgumentError(
                "invalid generic resource: task.resources.reservations.generic takes counts only (kind=amount); "
                "names are for nodes"
            )
        if resource.discrete_resource_spec.value < 0:
            raise InvalidArgumentError(
                "invalid generic resource: task.resources.reservations.generic has a negative amount"
            )
    if spec.resources.limits.generic:
        raise InvalidArgumentError(
            "invalid generic resource: task.resources.limits.generic limits nothing: reserve it, in "
            "task.resources.reservations.generic"
        )
    check_swap(spec.resources)
    check_restart(spec.restart)
    check_constraints(spec.placement.constraints)
    for position, preference in enumerate(spec.placement.preferences):
        if preference.WhichOneof("Preference") is None:
            raise InvalidArgumentError(f"task.placement.preferences[{position}] is empty: give it a spread")
    if spec.log_driver.name:
        check_free_name(spec.log_driver.name, "task.log_driver.name")
    container = spec.container
    _check_secrets(container.secrets)
    _check_configs(container)
    runtime = spec.WhichOneof("runtime")
    if runtime is None:
        raise InvalidArgumentError("TaskSpec: missing runtime: give task.container or task.generic")
    if runtime == "attachment":
        raise UnimplementedError(
            "task.attachment can't be asked for in a service: use a container or a generic runtime"
        )
    if runtime == "generic":
        check_generic(spec.generic)
    else:
        check_container(container, service)


def check_resources(resources: Resources, field: str) -> None:
    if resources.nano_cpus and resources.nano_cpus < MIN_NANO_CPUS:
        raise InvalidArgumentError(
            f"invalid cpu value {resources.nano_cpus / 1e9:g}: Must be at least 0.001: {field}.nano_cpus"
        )
    if resources.memory_bytes and resources.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgumentError(
            f"invalid memory value {resources.memory_bytes}: Must be at least 4MiB: {field}.memory_bytes"
        )


def check_swap(resources: ResourceRequirements) -> None:
    """-1 stands for no limit, and for the engine's own swappiness."""
    if resources.swap_bytes.value < -1:
        raise InvalidArgumentError("invalid swap value: task.resources.swap_bytes must be -1 or more")
    if not -1 <= resources.memory_swappiness.value <= MAX_SWAPPINESS:
        raise InvalidArgumentError(
            f"invalid swappiness: task.resources.memory_swappiness must be between -1 and {MAX_SWAPPINESS}"
        )


def check_restart(policy: RestartPolicy) -> None:
    for part, duration in (("delay", policy.delay), ("window", policy.window)):
        if duration_nanoseconds(duration) < 0:
            raise InvalidArgumentError(f"TaskSpec: restart-{part} cannot be negative: task.restart.{part}")


def check_constraints(expressions: Iterable[str]) -> None:
    for position, expression in enumerate(expressions):
        try:
            constraints.parse_one(expression)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"task.placement.constraints[{position}]: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    text = str(error)
    return "".join(char if char.isprintable() else "?" for char in text[:300])


def check_generic(spec: GenericRuntimeSpec) -> None:
    if len(spec.kind) < MIN_KIND_CHARACTERS or len(spec.kind) > MAX_KIND_CHARACTERS or not spec.kind.isprintable():
        raise InvalidArgumentError(
            f"Generic runtime: Invalid name {brief(spec.kind)!r}: task.generic.kind must be printable, of "
            f"{MIN_KIND_CHARACTERS} to {MAX_KIND_CHARACTERS} characters"
        )
    if spec.kind.lower() in ("container", "attachment"):
        raise InvalidArgumentError(
            f"Generic runtime: {spec.kind!r} is a reserved name: task.generic.kind must be another"
        )
    if not spec.HasField("payload"):
        raise InvalidArgumentError("Generic runtime is missing payload: task.generic.payload")
    if not spec.payload.type_url:
        raise InvalidArgumentError("Generic runtime is missing payload type: task.generic.payload.type_url")
    if not spec.payload.value:
        raise InvalidArgumentError("Generic runtime has an empty payload: task.generic.payload.value")


def check_container(spec: ContainerSpec, service: Annotations) -> None:
    targets = check_templates(spec, service)
    if not spec.image:
        raise InvalidArgumentError("ContainerSpec: image reference must be provided: task.container.image is empty")
    if not is_image_reference(spec.image):
        raise InvalidArgumentError(
            f"ContainerSpec: {brief(spec.image)!r} is not a valid repository/tag: task.container.image"
        )
    for field, value in (("user", spec.user), ("dir", spec.dir)):
        if len(value) > MAX_PATH_CHARACTERS:
            raise InvalidArgumentError(
                f"ContainerSpec: task.container.{field} has {len(value)} characters, "
                f"and at most {MAX_PATH_CHARACTERS} are taken"
            )
    _check_mounts(spec, targets)
    if spec.HasField("healthcheck"):
        check_health(spec.healthcheck)
    if duration_nanoseconds(spec.stop_grace_period) < 0:
        raise InvalidArgumentError("ContainerSpec: task.container.stop_grace_period cannot be negative")
    for position, entry in enumerate(spec.env):
        if not entry or entry.startswith("="):
            # Not shown: what follows may be a secret.
            raise InvalidArgumentError(
                f"ContainerSpec: task.container.env[{position}] has no name: write it like NAME=value"
            )
    for position, address in enumerate(spec.dns_config.nameservers):
        if not _is_address(address):
            raise InvalidArgumentError(
                f"ContainerSpec: {brief(address)!r} is no address: task.container.dns_config.nameservers[{position}]"
            )
    seccomp = spec.privileges.seccomp
    if seccomp.profile and seccomp.mode != Privileges.SeccompOpts.CUSTOM:
        raise InvalidArgumentError("ContainerSpec: task.container.privileges.seccomp.profile needs the mode CUSTOM")
    _check_limits(spec)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_mounts(spec: ContainerSpec, targets: Iterable[str]) -> None:
    seen: set[str] = set()
    for position, (mount, target) in enumerate(zip(spec.mounts, targets, strict=True)):
        if not target:
            raise InvalidArgumentError(f"ContainerSpec: task.container.mounts[{position}].target is empty")
        if target in seen:
            raise InvalidArgumentError(
                f"ContainerSpec: duplicate mount point: {brief(target)}: task.container.mounts[{position}].target"
            )
        seen.add(target)
        if mount.tmpfs_options.size_bytes < 0:
            raise InvalidArgumentError(
                f"ContainerSpec: task.container.mounts[{position}].tmpfs_options.size_bytes cannot be negative"
            )


def _check_limits(spec: ContainerSpec) -> None:
    """Numbers for the kernel, of which -1 stands for no limit."""
    if spec.pidsLimit < -1:
        raise InvalidArgumentError("ContainerSpec: task.container.pidsLimit must be -1 or more")
    if abs(spec.oom_score_adj) > MAX_OOM_SCORE:
        raise InvalidArgumentError(
            f"ContainerSpec: task.container.oom_score_adj must be between -{MAX_OOM_SCORE} and {MAX_OOM_SCORE}"
        )
    for position, limit in enumerate(spec.ulimits):
        if not limit.name:
            raise InvalidArgumentError(f"ContainerSpec: task.container.ulimits[{position}].name is empty")
        if limit.soft < -1 or limit.hard < -1:
            raise InvalidArgumentError(
                f"ContainerSpec: task.container.ulimits[{position}] cannot be negative, except -1 for no limit"
            )
        if limit.hard != -1 and not 0 <= limit.soft <= limit.hard:
            raise InvalidArgumentError(
                f"ContainerSpec: task.container.ulimits[{position}] has a soft limit above the hard one"
            )


def check_health(health: HealthConfig) -> None:
    if not is_health_test(health.test):
        raise InvalidArgumentError(
            "ContainerSpec: task.container.healthcheck.test must be NONE, CMD and its words, or CMD-SHELL and a command"
        )
    for title, part, duration in (
        ("Interval", "interval", health.interval),
        ("Timeout", "timeout", health.timeout),
        ("StartPeriod", "start_period", health.start_period),
        ("StartInterval", "start_interval", health.start_interval),
    ):
        length = duration_nanoseconds(duration)
        if length and length < MIN_HEALTH_NANOSECONDS:
            raise InvalidArgumentError(
                f"ContainerSpec: {title} in HealthConfig cannot be less than 1ms: task.container.healthcheck.{part}"
            )
    if health.retries < 0:
        raise InvalidArgumentError(
            "ContainerSpec: Retries in HealthConfig cannot be negative: task.container.healthcheck.retries"
        )


def _check_secrets(references: Iterable[SecretReference]) -> None:
    seen: dict[str, str] = {}
    for reference in references:
        if not reference.secret_id or not reference.secret_name:
            raise InvalidArgumentError(
                "malformed secret reference: task.container.secrets needs secret_id and secret_name"
            )
        if reference.WhichOneof("target") is None:
            raise InvalidArgumentError("malformed secret reference, no target provided: task.container.secrets.target")
        _claim_target(seen, reference.file.name, reference.secret_name, "secret")


def _check_configs(container: ContainerSpec) -> None:
    seen: dict[str, str] = {}
    for reference in container.configs:
        if not reference.config_id or not reference.config_name:
            raise InvalidArgumentError(
                "malformed config reference: task.container.configs needs config_id and config_name"
            )
        target = reference.WhichOneof("target")
        if target is None:
            raise InvalidArgumentError("malformed config reference, no target provided: task.container.configs.target")
        if target == "file":
            _claim_target(seen, reference.file.name, reference.config_name, "config")
    credential = container.privileges.credential_spec
    if credential.WhichOneof("source") == "config" and not _is_runtime_config(container.configs, credential.config):
        raise InvalidArgumentError(
            f"CredentialSpec: config {brief(credential.config)!r} must be in task.container.configs, "
            "with a runtime target"
        )


def _is_runtime_config(references: Iterable[ConfigReference], config_id: str) -> bool:
    return any(ref.config_id == config_id and ref.WhichOneof("target") == "runtime" for ref in references)


def _claim_target(seen: dict[str, str], target: str, name: str, kind: str) -> None:
    if not target:
        raise InvalidArgumentError(
            f"malformed {kind} reference, no file name for {brief(name)!r}: task.container.{kind}s.file.name"
        )
    if target in seen:
        raise InvalidArgumentError(
            f"{kind} references {brief(seen[target])!r} and {brief(name)!r} have a conflicting target: "
            f"{brief(target)!r}: give each its own in task.container.{kind}s.file.name"
        )
    seen[target] = name
