"""Runs tasks of the generic runtime `process` as plain processes: needs nothing but Linux and a POSIX shell.

Start reading in `controller.py`. `spec.py` says what a task may ask for, `launcher.py` is what each process was before
it became its program, and `processes.py` tells processes apart for as long as the machine runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.plugin import hookimpl
from swarmcore.plugin.executor import ExecutorFactory
from swarmcore.plugin.hookspecs import PluginInfo
from swarmcore_process_executor.factory import ProcessFactory


@hookimpl
def swarmcore_plugin() -> PluginInfo:
    return PluginInfo(name="process-executor", summary="Runs tasks as plain processes")


@hookimpl
def swarmcore_executors() -> Sequence[ExecutorFactory]:
    return [ProcessFactory()]
