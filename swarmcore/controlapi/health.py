"""The Health service: whether this manager serves what a caller is about to ask for (SwarmKit: 13.3)."""

from __future__ import annotations

from typing import Final

from swarmcore.api.health_pb2 import HealthCheckRequest, HealthCheckResponse
from swarmcore.api.health_pb2_grpc import HealthServicer
from swarmcore.controlapi.calls import not_found

RAFT: Final = "Raft"
CONTROL_API: Final = "ControlAPI"


class HealthService(HealthServicer):
    """Registered once on a manager's servers. Both of SwarmKit's services are known, and serve when they are set to."""

    def __init__(self) -> None:
        self._serving = {"": True, RAFT: False, CONTROL_API: False}

    def set_serving(self, name: str, serving: bool) -> None:
        """Say whether the service `name` may be asked now."""
        self._serving[name] = serving

    async def Check(self, request: HealthCheckRequest, context: object) -> HealthCheckResponse:
        serving = self._serving.get(request.service)
        if serving is None:
            raise not_found("service", request.service)
        return HealthCheckResponse(status=HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)
