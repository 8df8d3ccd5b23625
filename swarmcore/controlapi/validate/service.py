"""The spec of a service, and how it gets along with other services (SwarmKit: 2.4)."""

from __future__ import annotations

from collections.abc import Iterable

from swarmcore.api.objects_pb2 import Service
from swarmcore.api.specs_pb2 import EndpointSpec, ServiceSpec
from swarmcore.api.types_pb2 import PortConfig, UpdateConfig
from swarmcore.controlapi.validate.bounds import brief, duration_nanoseconds
from swarmcore.controlapi.validate.names import check_annotations
from swarmcore.controlapi.validate.task import check_task_spec
from swarmcore.errors import InvalidArgumentError

JOB_MODES = ("replicated_job", "global_job")
MAX_TASKS = 200_000
"""Of one service: a task takes about 3 KB in every manager, and a mistyped number must not fill their memory."""


def is_job(spec: ServiceSpec) -> bool:
    return spec.WhichOneof("mode") in JOB_MODES


def check_service_spec(spec: ServiceSpec) -> None:
    """Every rule that needs the spec alone, in SwarmKit's order."""
    check_annotations(spec.annotations)
    check_task_spec(spec.task, spec.annotations)
    check_mode(spec)
    if is_job(spec):
        if spec.HasField("update"):
            raise InvalidArgumentError("job spec may not have update config: leave update out")
    else:
        check_update(spec.update, "update")
        check_update(spec.rollback, "rollback")
    check_endpoint(spec.endpoint)


def check_mode(spec: ServiceSpec) -> None:
    """The mode is given, and asks for no more tasks than a manager can hold."""
    mode = spec.WhichOneof("mode")
    if mode is None:
        raise InvalidArgumentError(
            "Unrecognized service mode: mode is missing: give replicated, global, replicated_job or global_job"
        )
    for field, value in (
        ("replicated.replicas", spec.replicated.replicas),
        ("replicated_job.max_concurrent", spec.replicated_job.max_concurrent),
        ("replicated_job.total_completions", spec.replicated_job.total_completions),
    ):
        if value > MAX_TASKS:
            raise InvalidArgumentError(f"{field} is {value}, and a service may have at most {MAX_TASKS} tasks")


def check_update(update: UpdateConfig, field: str) -> None:
    if duration_nanoseconds(update.delay) < 0:
        raise InvalidArgumentError(f"TaskSpec: update-delay cannot be negative: {field}.delay")
    if duration_nanoseconds(update.monitor) < 0:
        raise InvalidArgumentError(f"TaskSpec: update-monitor cannot be negative: {field}.monitor")
    if not 0.0 <= update.max_failure_ratio <= 1.0:
        raise InvalidArgumentError(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1: "
            f"{field}.max_failure_ratio must be between 0 and 1"
        )


def check_endpoint(endpoint: EndpointSpec) -> None:
    published: set[tuple[int, int]] = set()
    for port in endpoint.ports:
        if not 1 <= port.target_port <= 65535:
            raise InvalidArgumentError(f"endpoint.ports.target_port {port.target_port} must be between 1 and 65535")
        if port.published_port > 65535:
            raise InvalidArgumentError(f"endpoint.ports.published_port {port.published_port} must be at most 65535")
        if endpoint.mode == EndpointSpec.DNSRR and port.publish_mode == PortConfig.INGRESS:
            raise InvalidArgumentError(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode: endpoint.mode"
            )
        if not port.published_port:
            continue
        key = (port.published_port, port.protocol)
        if key in published:
            raise InvalidArgumentError(
                f"EndpointSpec: duplicate published ports provided: endpoint.ports has {port.published_port} twice"
            )
        published.add(key)


def needs_ingress(spec: ServiceSpec) -> bool:
    return any(port.publish_mode == PortConfig.INGRESS for port in spec.endpoint.ports)


def _claims(ports: Iterable[PortConfig]) -> dict[tuple[int, int], int]:
    """(port, protocol) to publish mode, of fixed ports."""
    return {(port.published_port, port.protocol): port.publish_mode for port in ports if port.published_port}


def check_port_conflicts(spec: ServiceSpec, own_id: str, others: Iterable[Service]) -> None:
    """No ingress port may meet another service's port of the same protocol; host ports may meet each other."""
    wanted = _claims(spec.endpoint.ports)
    if not wanted:
        return
    for other in others:
        if other.id == own_id or (not other.HasField("endpoint") and not other.spec.HasField("endpoint")):
            continue
        for ports in (other.spec.endpoint.ports, other.endpoint.ports):
            for key, mode in _claims(ports).items():
                if key in wanted and PortConfig.INGRESS in (mode, wanted[key]):
                    raise InvalidArgumentError(
                        f"port '{key[0]}' is already in use by service '{brief(other.spec.annotations.name)}' "
                        f"({other.id}): choose another in endpoint.ports"
                    )
