"""What the plugin offers the core."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.executor import Executor, HostInfo

SHELL = "/bin/sh"


class ProcessFactory:
    """Makes executors for plain processes. Never chosen by itself: processes share the machine with everything else."""

    name = "process"
    runtimes = frozenset({"process"})
    automatic = 0

    async def available(self, host: HostInfo) -> bool:
        """Whether this is Linux with /proc and a shell."""
        return _missing() is None

    async def create(self, host: HostInfo) -> Executor:
        """Raises ConfigurationError on a machine that can't run it."""
        from swarmcore_process_executor.executor import ProcessExecutor

        missing = _missing()
        if missing is not None:
            raise ConfigurationError(f"executor 'process' {missing}: choose another with --executor")
        return ProcessExecutor(Path(host.state_dir))


def _missing() -> str | None:
    if sys.platform != "linux":
        return "runs on Linux only"
    if not os.access(SHELL, os.X_OK):
        return f"needs {SHELL}"
    if not os.path.exists("/proc/self/stat"):
        return "needs /proc"
    return None
