"""What the plugin offers the core. Imports the `docker` package only when an executor is made."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.executor import Executor, HostInfo

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
PING_SECONDS = 2.0


class DockerFactory:
    """Makes executors for a Docker Engine that listens on a unix socket or on TCP."""

    name = "docker"
    runtimes = frozenset({"container"})
    automatic = 10

    async def available(self, host: HostInfo) -> bool:
        """Whether the engine answers a ping, without importing anything heavy."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                return await _ping(host.engine_addr or DEFAULT_ADDRESS)
        except (OSError, TimeoutError, ValueError):
            return False

    async def create(self, host: HostInfo) -> Executor:
        """Connect to the engine. Raises ConfigurationError where it does not answer."""
        from swarmcore_docker_executor.executor import DockerExecutor

        return await DockerExecutor.connect(host, host.engine_addr or DEFAULT_ADDRESS)


async def _ping(address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path)
    elif parts.scheme == "tcp":
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 2375)
    else:
        raise ConfigurationError(f"engine address {address!r} must start with unix:// or tcp://")
    try:
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        await writer.drain()
        status = await reader.readline()
        head = await reader.read(4096)
        # Podman answers the same path and says so in a header; it has an executor of its own.
        return b" 200 " in status and b"libpod-api-version" not in head.lower()
    finally:
        writer.close()
