"""Published ports: which service holds which, and what a service's endpoint becomes (SwarmKit: 12.2).

Pure. Only INGRESS ports are given out by the cluster, with a space of their own for each protocol; HOST ports are the
scheduler's affair and copied as they are.
"""

from __future__ import annotations

from typing import TypeAlias

from swarmcore.api.objects_pb2 import Endpoint, Service
from swarmcore.api.types_pb2 import PortConfig

FIRST_DYNAMIC = 30_000
LAST_DYNAMIC = 32_767
LAST_PORT = 65_535

Port: TypeAlias = tuple[int, int]
"""Protocol and number."""


class PortConflict(Exception):
    """A port can't be given. The text says which and why, for a task's status."""


class PortSpace:
    """All INGRESS ports that are taken, by service."""

    def __init__(self) -> None:
        self._holders: dict[Port, str] = {}
        self._held: dict[str, set[Port]] = {}
        self._next: dict[int, int] = {}

    def holder(self, port: Port) -> str | None:
        """The service that holds a port."""
        return self._holders.get(port)

    def held(self, service_id: str) -> frozenset[Port]:
        """What a service holds."""
        return frozenset(self._held.get(service_id, ()))

    def restore(self, service: Service) -> bool:
        """Reserve what the service holds in the store; False where another holds some of it already."""
        is_whole = True
        for port in ingress_ports(service.endpoint):
            if self._holders.setdefault(port, service.id) == service.id:
                self._held.setdefault(service.id, set()).add(port)
            else:
                is_whole = False
        return is_whole

    def release(self, service_id: str) -> bool:
        """Free all that the service holds; whether that was anything."""
        held = self._held.pop(service_id, None)
        for port in held or ():
            del self._holders[port]
        return bool(held)

    def allocate(self, service: Service) -> Endpoint:
        """Make the endpoint that the service's spec asks for, and reserve its ports instead of those held before.

        Raises PortConflict; then all is as it was.
        """
        before = self._held.get(service.id, set())
        self.release(service.id)
        taken: set[Port] = set()
        try:
            ports = self._choose(service, before, taken)
        except PortConflict:
            taken = before
            raise
        finally:
            if taken:
                self._held[service.id] = taken
                self._holders.update(dict.fromkeys(taken, service.id))
        endpoint = Endpoint()
        endpoint.spec.CopyFrom(service.spec.endpoint)
        endpoint.ports.extend(ports)
        return endpoint

    def _choose(self, service: Service, before: set[Port], taken: set[Port]) -> list[PortConfig]:
        ports = []
        for asked in service.spec.endpoint.ports:
            port = PortConfig()
            port.CopyFrom(asked)
            ports.append(port)
        wanted = [port for port in ports if port.publish_mode == PortConfig.INGRESS]
        for port in wanted:
            if port.published_port:
                self._take((port.protocol, port.published_port), taken)
        known = {_identity(port): port.published_port for port in service.endpoint.ports}
        for port in wanted:
            kept = (int(port.protocol), known.get(_identity(port), 0))
            if not port.published_port and kept in before and kept not in taken:
                taken.add(kept)
                port.published_port = kept[1]
        for port in wanted:
            if not port.published_port:
                port.published_port = self._take_next(port.protocol, taken)
        return ports

    def _take(self, port: Port, taken: set[Port]) -> None:
        number = f"{port[1]}/{PortConfig.Protocol.Name(port[0]).lower()}"  # type: ignore[arg-type]
        if port[1] > LAST_PORT:
            raise PortConflict(f"port {number} does not exist")
        holder = self._holders.get(port)
        if holder is not None:
            raise PortConflict(f"port {number} is already in use by service {holder}")
        if port in taken:
            raise PortConflict(f"port {number} is published twice")
        taken.add(port)

    def _take_next(self, protocol: int, taken: set[Port]) -> int:
        """The next dynamic port, one after another, so that one just freed is not given out again at once."""
        size = LAST_DYNAMIC - FIRST_DYNAMIC + 1
        start = self._next.get(protocol, FIRST_DYNAMIC) - FIRST_DYNAMIC
        for offset in range(size):
            number = FIRST_DYNAMIC + (start + offset) % size
            port = (protocol, number)
            if port not in self._holders and port not in taken:
                taken.add(port)
                self._next[protocol] = number + 1
                return number
        raise PortConflict(f"no port from {FIRST_DYNAMIC} to {LAST_DYNAMIC} is free")


def ingress_ports(endpoint: Endpoint) -> list[Port]:
    """The ports that the cluster gave to an endpoint."""
    return [
        (port.protocol, port.published_port)
        for port in endpoint.ports
        if port.publish_mode == PortConfig.INGRESS and port.published_port
    ]


def _identity(port: PortConfig) -> tuple[str, int, int]:
    return port.name, port.protocol, port.target_port
