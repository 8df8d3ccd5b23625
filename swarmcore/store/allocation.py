"""What has to be given to a service and its tasks before these may be scheduled. Pure: a rule about stored objects.

The allocator is the one that gives. Where nothing is to be given, whoever makes a task may say so at once, by the same
rule: the task is then PENDING from its first version on, and one write for each task is spared.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.types_pb2 import PortConfig, TaskState

PENDING_MESSAGE = "pending task scheduling"

_INGRESS = PortConfig.INGRESS
_PENDING = TaskState.PENDING


def has_networks(service: Service) -> bool:
    """Whether the service asks for networks of its own."""
    return bool(service.spec.task.networks or service.spec.networks)


def is_allocated(service: Service) -> bool:
    """Whether the service's endpoint is what its spec asks for."""
    if not service.spec.HasField("endpoint"):
        return not service.HasField("endpoint")
    if not service.HasField("endpoint") or service.endpoint.spec != service.spec.endpoint:
        return False
    if len(service.endpoint.ports) != len(service.spec.endpoint.ports):
        return False
    return all(port.published_port for port in service.endpoint.ports if port.publish_mode == _INGRESS)


def needs_nothing(service: Service) -> bool:
    """Whether neither the service nor a task of it holds or waits for anything that the allocator gives out."""
    return (
        not has_networks(service)
        and is_allocated(service)
        and all(port.publish_mode != _INGRESS for port in service.endpoint.ports)
    )


def release(task: Task, service: Service | None, now: Timestamp) -> None:
    """Let a task whose needs are met go on to the scheduler (NEW to PENDING; SwarmKit: 12.1)."""
    if service is not None and service.HasField("endpoint"):
        task.endpoint.CopyFrom(service.endpoint)
    status = task.status
    status.state = _PENDING
    status.message = PENDING_MESSAGE
    status.err = ""
    status.timestamp.CopyFrom(now)
