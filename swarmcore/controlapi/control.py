"""The Control service: every call of `docker.swarmkit.v1.Control`, a file for each kind of object."""

from __future__ import annotations

from swarmcore.api.control_pb2_grpc import ControlServicer
from swarmcore.controlapi.clusters import ClusterCalls
from swarmcore.controlapi.configs import ConfigCalls
from swarmcore.controlapi.extensions import ExtensionCalls
from swarmcore.controlapi.networks import NetworkCalls
from swarmcore.controlapi.nodes import NodeCalls
from swarmcore.controlapi.secrets import SecretCalls
from swarmcore.controlapi.services import ServiceCalls
from swarmcore.controlapi.tasks import TaskCalls
from swarmcore.controlapi.volumes import VolumeCalls


class ControlService(
    NodeCalls,
    TaskCalls,
    ServiceCalls,
    NetworkCalls,
    ClusterCalls,
    SecretCalls,
    ConfigCalls,
    ExtensionCalls,
    VolumeCalls,
    ControlServicer,
):
    """Registered once on a manager's servers. Arguments: see `Calls`. Raises SwarmError; the interceptor maps it."""
