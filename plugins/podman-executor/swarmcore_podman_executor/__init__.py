"""Runs tasks as containers on Podman, through the `podman` package and the service's own (libpod) API.

Start reading in `controller.py`; `spec.py` says how each field of a container spec reaches the engine, and
`differences.py` where Podman is not Docker.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.plugin import hookimpl
from swarmcore.plugin.executor import ExecutorFactory
from swarmcore.plugin.hookspecs import PluginInfo
from swarmcore_podman_executor.factory import PodmanFactory


@hookimpl
def swarmcore_plugin() -> PluginInfo:
    return PluginInfo(name="podman-executor", summary="Runs tasks as containers on Podman")


@hookimpl
def swarmcore_executors() -> Sequence[ExecutorFactory]:
    return [PodmanFactory()]
