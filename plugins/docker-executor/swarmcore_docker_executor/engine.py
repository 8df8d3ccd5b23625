"""Calls to one Docker Engine, by the `docker` package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import docker.errors
import requests
from docker.api.client import APIClient

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.container_events import ContainerEvents
from swarmcore.plugin.engine_calls import EngineCalls, reason_of
from swarmcore.plugin.engine_exec import EngineApi
from swarmcore.plugin.executor import ExecutorError
from swarmcore.plugin.threads import Threads
from swarmcore_docker_executor.host import Host
from swarmcore_docker_executor.sockets import abort, new_client

LOWEST_API: Final = "1.24"
"""For the first question, which no version counts for."""
CONNECT_SECONDS: Final = 10
NEWS: Final = {
    "type": ["container"],
    "event": ["die", "destroy", "health_status"],
    "label": ["com.docker.swarm.task"],
}


class Engine(EngineCalls[APIClient]):
    """One engine at one address."""

    failures = (requests.RequestException,)

    def __init__(self, address: str, api_version: str, threads: Threads | None = None) -> None:
        super().__init__("Docker", address, EngineApi(address, f"/v{api_version}"), threads)
        self.api_version = api_version
        self.host = Host()

    @classmethod
    async def connect(cls, address: str) -> Engine:
        """Ask the engine for its API version and its host; raises ConfigurationError where it does not answer."""

        def version() -> str:
            client = new_client(address, LOWEST_API, CONNECT_SECONDS)
            try:
                return str(client.version(api_version=False)["ApiVersion"])
            finally:
                client.close()

        engine = cls(address, LOWEST_API)
        try:
            engine.api_version = await engine.run(version)
            engine.api = EngineApi(address, f"/v{engine.api_version}")
            engine.host = Host.of(await engine.call("GET", "/info", timeout=CONNECT_SECONDS) or {})
            return engine
        except (docker.errors.DockerException, requests.RequestException, OSError, ExecutorError) as error:
            await engine.aclose()
            raise ConfigurationError(
                f"no Docker engine answers at {address!r} ({reason_of(error)}); start it or change --engine-addr"
            ) from error
        except BaseException:
            await engine.aclose()
            raise

    @property
    def api_number(self) -> tuple[int, int]:
        major, minor = self.api_version.split(".")[:2]
        return int(major), int(minor)

    def events(self) -> ContainerEvents:
        """News of tasks' containers from now on; to be closed before the engine is."""
        return ContainerEvents(self.engine, self.address, f"/v{self.api_version}/events", NEWS)

    def _client(self, timeout: float | None) -> APIClient:
        return new_client(self.address, self.api_version, timeout)

    def _ask(
        self,
        client: APIClient,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        timeout: float,
    ) -> requests.Response:
        url = f"{client.base_url}/v{self.api_version}{path}"
        return client.request(method, url, params=params, json=body, timeout=timeout)

    def _abort(self, client: APIClient) -> None:
        abort(client)
