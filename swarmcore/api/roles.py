"""Who may call what: one row for each RPC, matched exactly; what has no row is refused (SwarmKit: 1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from swarmcore.api.types_pb2 import NodeRole

Roles = frozenset[NodeRole.ValueType | None]
"""The roles whose certificate opens an RPC; None stands for a caller without a certificate."""

MANAGER: Roles = frozenset({NodeRole.MANAGER})
NODE: Roles = frozenset({NodeRole.MANAGER, NodeRole.WORKER})
ANYONE: Roles = frozenset({NodeRole.MANAGER, NodeRole.WORKER, None})

_ROLES: dict[str, Roles] = {
    "/swarmcore.v1.Raft/Deliver": MANAGER,
    "/swarmcore.v1.Raft/Install": MANAGER,
    "/swarmcore.v1.Raft/Received": MANAGER,
    "/swarmcore.v1.Raft/Join": MANAGER,
    "/swarmcore.v1.Raft/Replaced": ANYONE,
    "/swarmcore.v1.Raft/Leave": MANAGER,
    "/docker.swarmkit.v1.CA/GetRootCACertificate": ANYONE,
    "/docker.swarmkit.v1.CA/GetUnlockKey": MANAGER,
    "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate": ANYONE,
    "/docker.swarmkit.v1.NodeCA/NodeCertificateStatus": ANYONE,
    "/docker.swarmkit.v1.Control/GetNode": MANAGER,
    "/docker.swarmkit.v1.Control/ListNodes": MANAGER,
    "/docker.swarmkit.v1.Control/UpdateNode": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveNode": MANAGER,
    "/docker.swarmkit.v1.Control/GetTask": MANAGER,
    "/docker.swarmkit.v1.Control/ListTasks": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveTask": MANAGER,
    "/docker.swarmkit.v1.Control/GetService": MANAGER,
    "/docker.swarmkit.v1.Control/ListServices": MANAGER,
    "/docker.swarmkit.v1.Control/CreateService": MANAGER,
    "/docker.swarmkit.v1.Control/UpdateService": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveService": MANAGER,
    "/docker.swarmkit.v1.Control/ListServiceStatuses": MANAGER,
    "/docker.swarmkit.v1.Control/GetNetwork": MANAGER,
    "/docker.swarmkit.v1.Control/ListNetworks": MANAGER,
    "/docker.swarmkit.v1.Control/CreateNetwork": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveNetwork": MANAGER,
    "/docker.swarmkit.v1.Control/GetCluster": MANAGER,
    "/docker.swarmkit.v1.Control/ListClusters": MANAGER,
    "/docker.swarmkit.v1.Control/UpdateCluster": MANAGER,
    "/docker.swarmkit.v1.Control/GetSecret": MANAGER,
    "/docker.swarmkit.v1.Control/UpdateSecret": MANAGER,
    "/docker.swarmkit.v1.Control/ListSecrets": MANAGER,
    "/docker.swarmkit.v1.Control/CreateSecret": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveSecret": MANAGER,
    "/docker.swarmkit.v1.Control/GetConfig": MANAGER,
    "/docker.swarmkit.v1.Control/UpdateConfig": MANAGER,
    "/docker.swarmkit.v1.Control/ListConfigs": MANAGER,
    "/docker.swarmkit.v1.Control/CreateConfig": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveConfig": MANAGER,
    "/docker.swarmkit.v1.Control/GetExtension": MANAGER,
    "/docker.swarmkit.v1.Control/CreateExtension": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveExtension": MANAGER,
    "/docker.swarmkit.v1.Control/GetResource": MANAGER,
    "/docker.swarmkit.v1.Control/UpdateResource": MANAGER,
    "/docker.swarmkit.v1.Control/ListResources": MANAGER,
    "/docker.swarmkit.v1.Control/CreateResource": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveResource": MANAGER,
    "/docker.swarmkit.v1.Control/CreateVolume": MANAGER,
    "/docker.swarmkit.v1.Control/GetVolume": MANAGER,
    "/docker.swarmkit.v1.Control/UpdateVolume": MANAGER,
    "/docker.swarmkit.v1.Control/ListVolumes": MANAGER,
    "/docker.swarmkit.v1.Control/RemoveVolume": MANAGER,
    "/docker.swarmkit.v1.Dispatcher/Session": NODE,
    "/docker.swarmkit.v1.Dispatcher/Heartbeat": NODE,
    "/docker.swarmkit.v1.Dispatcher/UpdateTaskStatus": NODE,
    "/docker.swarmkit.v1.Dispatcher/UpdateVolumeStatus": NODE,
    "/docker.swarmkit.v1.Dispatcher/Tasks": NODE,
    "/docker.swarmkit.v1.Dispatcher/Assignments": NODE,
    "/docker.swarmkit.v1.Health/Check": MANAGER,
    "/docker.swarmkit.v1.Logs/SubscribeLogs": MANAGER,
    "/docker.swarmkit.v1.LogBroker/ListenSubscriptions": NODE,
    "/docker.swarmkit.v1.LogBroker/PublishLogs": NODE,
    "/swarmcore.v1.Plugins/ListPlugins": MANAGER,
    "/swarmcore.v1.Backup/Take": MANAGER,
    "/swarmcore.v1.TaskAccess/Exec": MANAGER,
    "/swarmcore.v1.TaskAccess/Stats": MANAGER,
    "/swarmcore.v1.TaskAccessBroker/ListenRequests": NODE,
    "/swarmcore.v1.TaskAccessBroker/ServeExec": NODE,
    "/swarmcore.v1.TaskAccessBroker/ServeStats": NODE,
    "/docker.swarmkit.v1.ResourceAllocator/AttachNetwork": NODE,
    "/docker.swarmkit.v1.ResourceAllocator/DetachNetwork": NODE,
    "/docker.swarmkit.v1.Watch/Watch": MANAGER,
}
ROLES: Mapping[str, Roles] = MappingProxyType(_ROLES)
SOCKET_ONLY = ("/swarmcore.v1.TaskAccess/",)
"""Services that only the operator of a manager's machine may call: on its control socket. A manager's certificate opens
them for nobody; managers pass such calls on to the leader."""
_NOBODY: Roles = frozenset()


def is_for_socket_only(method: str) -> bool:
    """Whether a call has to have come through a control socket."""
    return method.startswith(SOCKET_ONLY)


def may_call(method: str, role: NodeRole.ValueType | None) -> bool:
    """Whether a caller in `role` may call `method`, written as gRPC does: `/package.Service/Name`."""
    return role in ROLES.get(method, _NOBODY)
