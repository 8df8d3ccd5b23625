"""The task half of a service's spec: runtime, resources, restart, placement, references (SwarmKit: 2.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.specs_pb2 import ContainerSpec, GenericRuntimeSpec, TaskSpec
from swarmcore.api.types_pb2 import ConfigReference, HealthConfig, Resources, RestartPolicy, SecretReference
from swarmcore.controlapi.validate.bounds import duration_nanoseconds
from swarmcore.controlapi.validate.image import is_image_reference
from swarmcore.errors import InvalidArgumentError, UnimplementedError
from swarmcore.plugin import constraints

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY_BYTES = 4 * 1024 * 1024
MIN_HEALTH_NANOSECONDS = 1_000_000

ContainerCheck = Callable[[ContainerSpec], None]
"""Expands the templates of a container spec on a made-up node and task; raises InvalidArgumentError."""


def check_task_spec(spec: TaskSpec, check_templates: ContainerCheck | None = None) -> None:
    """Every rule that needs the spec alone."""
    for part, resources in (("limits", spec.resources.limits), ("reservations", spec.resources.reservations)):
        check_resources(resources, f"task.resources.{part}")
    for resource in spec.resources.reservations.generic:
        if not resource.HasField("discrete_resource_spec"):
            raise InvalidArgumentError(
                "task.resources.reservations.generic takes counts only (kind=amount); names are for nodes"
            )
        if resource.discrete_resource_spec.value < 0:
            raise InvalidArgumentError("task.resources.reservations.generic has a negative amount")
    check_restart(spec.restart)
    check_constraints(spec.placement.constraints)
    container = spec.container
    _check_secrets(container.secrets)
    _check_configs(container)
    runtime = spec.WhichOneof("runtime")
    if runtime is None:
        raise InvalidArgumentError("task.runtime is missing: give a container or a generic runtime")
    if runtime == "attachment":
        raise UnimplementedError(
            "task.attachment can't be asked for in a service: use a container or a generic runtime"
        )
    if runtime == "generic":
        check_generic(spec.generic)
    else:
        check_container(container, check_templates)


def check_resources(resources: Resources, field: str) -> None:
    if resources.nano_cpus and resources.nano_cpus < MIN_NANO_CPUS:
        raise InvalidArgumentError(
            f"invalid cpu value {resources.nano_cpus / 1e9:g}: {field} must be at least 0.001 CPU"
        )
    if resources.memory_bytes and resources.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgumentError(f"invalid memory value {resources.memory_bytes}: {field} must be at least 4MiB")


def check_restart(policy: RestartPolicy) -> None:
    for part, duration in (("delay", policy.delay), ("window", policy.window)):
        if duration_nanoseconds(duration) < 0:
            raise InvalidArgumentError(f"TaskSpec: restart-{part} cannot be negative: task.restart.{part}")


def check_constraints(expressions: Iterable[str]) -> None:
    for position, expression in enumerate(expressions):
        try:
            constraints.parse_one(expression)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"task.placement.constraints[{position}]: {error}") from None


def check_generic(spec: GenericRuntimeSpec) -> None:
    if len(spec.kind) < 3 or spec.kind.lower() in ("container", "attachment"):
        raise InvalidArgumentError(
            f"task.generic.kind {spec.kind!r} must have 3 characters, and be no built-in runtime"
        )
    if not spec.HasField("payload"):
        raise InvalidArgumentError("task.generic.payload is missing")
    if not spec.payload.type_url:
        raise InvalidArgumentError("task.generic.payload.type_url is empty")
    if not spec.payload.value:
        raise InvalidArgumentError("task.generic.payload.value is empty")


def check_container(spec: ContainerSpec, check_templates: ContainerCheck | None = None) -> None:
    if check_templates is not None:
        check_templates(spec)
    if not spec.image:
        raise InvalidArgumentError("ContainerSpec: image reference must be provided: task.container.image is empty")
    if not is_image_reference(spec.image):
        raise InvalidArgumentError(
            f"ContainerSpec: {spec.image[:200]!r} is not a valid repository/tag: task.container.image"
        )
    targets: set[str] = set()
    for mount in spec.mounts:
        if mount.target in targets:
            raise InvalidArgumentError(f"ContainerSpec: duplicate mount point: {mount.target}: task.container.mounts")
        targets.add(mount.target)
    if duration_nanoseconds(spec.stop_grace_period) < 0:
        raise InvalidArgumentError("task.container.stop_grace_period cannot be negative")
    for entry in spec.env:
        if not entry or entry.startswith("="):
            raise InvalidArgumentError(f"task.container.env {entry[:64]!r} has no name: write it like NAME=value")
    if spec.HasField("healthcheck"):
        check_health(spec.healthcheck)


def check_health(health: HealthConfig) -> None:
    def check(part: str, duration: Duration) -> None:
        length = duration_nanoseconds(duration)
        if length and length < MIN_HEALTH_NANOSECONDS:
            raise InvalidArgumentError(
                f"ContainerSpec: {part} in HealthConfig cannot be less than 1ms: task.container.healthcheck.{part}"
            )

    check("interval", health.interval)
    check("timeout", health.timeout)
    check("start_period", health.start_period)
    check("start_interval", health.start_interval)
    if health.retries < 0:
        raise InvalidArgumentError("ContainerSpec: task.container.healthcheck.retries cannot be negative")


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
            f"CredentialSpec: config {credential.config!r} must be in task.container.configs with a runtime target"
        )


def _is_runtime_config(references: Iterable[ConfigReference], config_id: str) -> bool:
    return any(ref.config_id == config_id and ref.WhichOneof("target") == "runtime" for ref in references)


def _claim_target(seen: dict[str, str], target: str, name: str, kind: str) -> None:
    if not target:
        raise InvalidArgumentError(
            f"malformed {kind} reference, no file name for {name!r}: task.container.{kind}s.file.name"
        )
    if target in seen:
        raise InvalidArgumentError(
            f"{kind} references {seen[target]!r} and {name!r} have a conflicting target: {target!r}: give each its own"
        )
    seen[target] = name
