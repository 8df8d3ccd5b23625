"""Names that a shell can complete, from the manager that the command line points at. Silent where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
import grpc

from swarmcore.api import control_pb2 as pb
from swarmcore.cli.command_line import CliError
from swarmcore.cli.connection import Manager, manager
from swarmcore.cli.lookup import node_name

PATIENCE_SECONDS = 1.0
"""Who presses Tab does not wait for a manager that is busy."""


def _plugins(to: Manager) -> Iterable[str]:
    from swarmcore.api.plugins_pb2 import ListPluginsRequest

    return (plugin.name for plugin in to.plugins.ListPlugins(ListPluginsRequest(), timeout=PATIENCE_SECONDS).plugins)


def _nodes(to: Manager) -> Iterable[str]:
    return (node_name(node) for node in to.control.ListNodes(pb.ListNodesRequest(), timeout=PATIENCE_SECONDS).nodes)


def _services(to: Manager) -> Iterable[str]:
    listed = to.control.ListServices(pb.ListServicesRequest(), timeout=PATIENCE_SECONDS).services
    return (service.spec.annotations.name for service in listed)


def _secrets(to: Manager) -> Iterable[str]:
    listed = to.control.ListSecrets(pb.ListSecretsRequest(), timeout=PATIENCE_SECONDS).secrets
    return (secret.spec.annotations.name for secret in listed)


def _configs(to: Manager) -> Iterable[str]:
    listed = to.control.ListConfigs(pb.ListConfigsRequest(), timeout=PATIENCE_SECONDS).configs
    return (config.spec.annotations.name for config in listed)


def _networks(to: Manager) -> Iterable[str]:
    listed = to.control.ListNetworks(pb.ListNetworksRequest(), timeout=PATIENCE_SECONDS).networks
    return (network.spec.annotations.name for network in listed)


def _tasks(to: Manager) -> Iterable[str]:
    return (task.id for task in to.control.ListTasks(pb.ListTasksRequest(), timeout=PATIENCE_SECONDS).tasks)


_KINDS: dict[str, Callable[[Manager], Iterable[str]]] = {
    "node": _nodes,
    "service": _services,
    "secret": _secrets,
    "config": _configs,
    "network": _networks,
    "task": _tasks,
    "plugin": _plugins,
}


def names_of(kind: str, context: click.Context, incomplete: str) -> list[str]:
    """The names of all objects of a kind that begin like this, in order."""
    try:
        with context.scope(cleanup=False):
            return sorted({name for name in _KINDS[kind](manager()) if name.startswith(incomplete)})
    except (CliError, grpc.RpcError):
        return []
