"""Runs tasks as containers on Docker Engine, through the `docker` package.

Start reading in `controller.py`; `spec.py` says how each field of a container spec reaches the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.plugin import hookimpl
from swarmcore.plugin.executor import ExecutorFactory
from swarmcore.plugin.hookspecs import PluginInfo
from swarmcore_docker_executor.factory import DockerFactory


@hookimpl
def swarmcore_plugin() -> PluginInfo:
    return PluginInfo(name="docker-executor", summary="Runs tasks as containers on Docker Engine")


@hookimpl
def swarmcore_executors() -> Sequence[ExecutorFactory]:
    return [DockerFactory()]
