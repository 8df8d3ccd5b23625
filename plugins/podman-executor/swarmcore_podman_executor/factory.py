"""What the plugin offers the core. Imports the `podman` package only when an executor is made."""

from __future__ import annotations

import asyncio
import os

from swarmcore.plugin.engine_http import ask
from swarmcore.plugin.executor import Executor, HostInfo

PING_SECONDS = 2.0
ROOT_ADDRESS = "unix:///run/podman/podman.sock"


def default_address() -> str:
    """Where Podman's socket is for this user."""
    if os.geteuid() == 0:
        return ROOT_ADDRESS
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return f"unix://{folder}/podman/podman.sock"


class PodmanFactory:
    """Makes executors for a Podman service that listens on a unix socket."""

    name = "podman"
    runtimes = frozenset({"container"})
    automatic = 20

    async def available(self, host: HostInfo) -> bool:
        """Whether the engine answers a ping, without importing anything heavy."""
        address = host.engine_addr or default_address()
        if not address.startswith("unix://"):
            return False
        try:
            async with asyncio.timeout(PING_SECONDS):
                async with ask(address, "GET", "/_ping") as answer:
                    # Docker answers the same path without this header; it has an executor of its own.
                    return answer.status == 200 and "libpod-api-version" in answer.headers
        except OSError:
            return False

    async def create(self, host: HostInfo) -> Executor:
        """Connect to the engine. Raises ConfigurationError where it does not answer."""
        from swarmcore_podman_executor.executor import PodmanExecutor

        return await PodmanExecutor.connect(host, host.engine_addr or default_address())
