"""From what a user types to an object, and from ids back to names (SwarmKit: 1.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from swarmcore.api import control_pb2 as pb
from swarmcore.api.brake import is_held
from swarmcore.api.types_pb2 import TaskState
from swarmcore.cli.command_line import CliError
from swarmcore.cli.connection import CallError, Manager

if TYPE_CHECKING:
    from swarmcore.api.objects_pb2 import Cluster, Config, Network, Node, Secret, Service, Task

T = TypeVar("T")
_NO_SUCH = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
MAX_TYPED = 256


def _checked(kind: str, typed: str) -> str:
    if not typed.strip():
        raise CliError(f"the {kind} is empty: give its name or id")
    if len(typed) > MAX_TYPED:
        raise CliError(f"the {kind} has {len(typed)} characters: no name or id is that long")
    if not typed.isprintable():
        raise CliError(f"{kind} {typed!r} has control characters: give its name or id")
    return typed


def _find(kind: str, typed: str, get: Callable[[str], T], by_name: Callable[[str], Sequence[T]]) -> T:
    """By full id, else by exact name."""
    _checked(kind, typed)
    try:
        return get(typed)
    except CallError as error:
        if error.code not in _NO_SUCH:
            raise
    return _only(kind, typed, by_name(typed))


def _only(kind: str, typed: str, found: Sequence[T]) -> T:
    if not found:
        raise CliError(f"{kind} {typed} not found: `swarmctl {kind} ls` lists what there is")
    if len(found) > 1:
        raise CliError(f"{kind} {typed} is ambiguous ({len(found)} matches found): use the id")
    return found[0]


def find_node(manager: Manager, typed: str) -> Node:
    control = manager.control

    def by_name(name: str) -> list[Node]:
        request = pb.ListNodesRequest(filters=pb.ListNodesRequest.Filters(names=[name]))
        found = list(manager.call(control.ListNodes, request).nodes)
        if found:
            return found
        # Managers match the hostname; the table shows the name of the spec where there is one.
        nodes = manager.call(control.ListNodes, pb.ListNodesRequest()).nodes
        return [node for node in nodes if node.spec.annotations.name == name]

    return _find("node", typed, lambda id: manager.call(control.GetNode, pb.GetNodeRequest(node_id=id)).node, by_name)


def find_service(manager: Manager, typed: str) -> Service:
    control = manager.control
    return _find(
        "service",
        typed,
        lambda id: manager.call(control.GetService, pb.GetServiceRequest(service_id=id)).service,
        lambda name: (
            manager.call(
                control.ListServices,
                pb.ListServicesRequest(filters=pb.ListServicesRequest.Filters(names=[name])),
            ).services
        ),
    )


def find_task(manager: Manager, typed: str) -> Task:
    """By id, by its beginning, or as logs and tables name tasks: `web.1`, `web.1.q9i5mhy0wv99`, with `@node` or not."""
    _checked("task", typed)
    try:
        return manager.call(manager.control.GetTask, pb.GetTaskRequest(task_id=typed)).task
    except CallError as error:
        if error.code not in _NO_SUCH:
            raise
    found = _tasks_called(manager, typed)
    # Of those that had the same slot one after another, the one that is there.
    found = [task for task in found if task.desired_state <= TaskState.COMPLETE] or found
    if not found:
        raise CliError(f"task {typed} not found: `swarmctl task ls -a` lists what there is")
    return _only("task", typed, found)


def _tasks_called(manager: Manager, typed: str) -> list[Task]:
    name = typed.partition("@")[0]
    filters = pb.ListTasksRequest.Filters
    if "." not in name:
        return _listed(manager, filters(id_prefixes=[name]))
    *rest, last = name.split(".")
    # The id may be left out, and the name of a service may have dots.
    for words, id in ((rest[:-1], last), ([], "")) if len(rest) > 1 else (([], ""),):
        service, place = (".".join(words), rest[-1]) if words else (".".join(rest), last)
        try:
            owner = find_service(manager, service)
        except CliError:
            continue
        names = Names(manager)
        return [
            task
            for task in _listed(manager, filters(service_ids=[owner.id]))
            if task.id.startswith(id) and place == (str(task.slot) if task.slot else names.node(task.node_id))
        ]
    return []


def _listed(manager: Manager, filters: pb.ListTasksRequest.Filters) -> list[Task]:
    return list(manager.call(manager.control.ListTasks, pb.ListTasksRequest(filters=filters)).tasks)


def find_network(manager: Manager, typed: str) -> Network:
    control = manager.control
    return _find(
        "network",
        typed,
        lambda id: manager.call(control.GetNetwork, pb.GetNetworkRequest(network_id=id)).network,
        lambda name: (
            manager.call(
                control.ListNetworks,
                pb.ListNetworksRequest(filters=pb.ListNetworksRequest.Filters(names=[name])),
            ).networks
        ),
    )


def find_cluster(manager: Manager, typed: str) -> Cluster:
    control = manager.control
    return _find(
        "cluster",
        typed,
        lambda id: manager.call(control.GetCluster, pb.GetClusterRequest(cluster_id=id)).cluster,
        lambda name: (
            manager.call(
                control.ListClusters,
                pb.ListClustersRequest(filters=pb.ListClustersRequest.Filters(names=[name])),
            ).clusters
        ),
    )


def _pick(kind: str, typed: str, found: Sequence[Any]) -> Any:
    """Of several with that name or id prefix: the exact id, then the exact name."""
    for exact in (
        [each for each in found if each.id == typed],
        [each for each in found if each.spec.annotations.name == typed],
    ):
        if exact:
            return exact[0]
    return _only(kind, typed, found)


def find_secret(manager: Manager, typed: str) -> Secret:
    _checked("secret", typed)
    filters = pb.ListSecretsRequest.Filters(names=[typed], id_prefixes=[typed])
    found = manager.call(manager.control.ListSecrets, pb.ListSecretsRequest(filters=filters)).secrets
    secret: Secret = _pick("secret", typed, found)
    return secret


def find_config(manager: Manager, typed: str) -> Config:
    _checked("config", typed)
    filters = pb.ListConfigsRequest.Filters(names=[typed], id_prefixes=[typed])
    found = manager.call(manager.control.ListConfigs, pb.ListConfigsRequest(filters=filters)).configs
    config: Config = _pick("config", typed, found)
    return config


class Names:
    """Names of nodes and services, each asked for once; the id where there is none, or with --no-resolve."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._nodes: dict[str, str] = {}
        self._services: dict[str, str] = {}
        self._held: set[str] = set()

    def load_nodes(self) -> None:
        """Ask for all at once, before a long table."""
        if self._manager.resolve:
            nodes = self._manager.call(self._manager.control.ListNodes, pb.ListNodesRequest()).nodes
            self._nodes.update({node.id: node_name(node) for node in nodes})
            self._held.update(node.id for node in nodes if is_held(node))

    def load_services(self) -> None:
        """As `load_nodes`."""
        if self._manager.resolve:
            services = self._manager.call(self._manager.control.ListServices, pb.ListServicesRequest()).services
            self._services.update({service.id: service.spec.annotations.name for service in services})

    def node(self, id: str) -> str:
        if not id or not self._manager.resolve:
            return id
        if id not in self._nodes:
            try:
                request = pb.GetNodeRequest(node_id=id)
                self._nodes[id] = node_name(self._manager.call(self._manager.control.GetNode, request).node)
            except CallError:
                self._nodes[id] = id
        return self._nodes[id]

    def is_held(self, node_id: str) -> bool:
        """Whether the brake holds the tasks of this node, as far as `load_nodes` saw."""
        return node_id in self._held

    def service(self, id: str) -> str:
        if not id or not self._manager.resolve:
            return id
        if id not in self._services:
            try:
                request = pb.GetServiceRequest(service_id=id)
                service = self._manager.call(self._manager.control.GetService, request).service
                self._services[id] = service.spec.annotations.name or id
            except CallError:
                self._services[id] = id
        return self._services[id]

    def task(self, task: Task) -> str:
        """`<service name>.<slot>`; of a global service `<service name>.<node>`."""
        if not self._manager.resolve:
            return f"{task.service_id}.{task.slot}" if task.slot else task.service_id or task.id
        service = self.service(task.service_id) if task.service_id else task.annotations.name
        place = str(task.slot) if task.slot else self.node(task.node_id)
        return f"{service}.{place}" if place else service


def node_name(node: Node) -> str:
    return node.spec.annotations.name or node.description.hostname or node.id
