"""Calls to one Podman service, by the `podman` package."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import requests
from podman.errors import PodmanError

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.container_events import ContainerEvents
from swarmcore.plugin.engine_calls import CALL_SECONDS, EngineCalls, EngineError, reason_of
from swarmcore.plugin.engine_exec import EngineApi
from swarmcore.plugin.engine_http import Answer, ask
from swarmcore.plugin.executor import TemporaryError
from swarmcore.plugin.threads import Threads
from swarmcore_podman_executor.differences import NEWS
from swarmcore_podman_executor.host import Host
from swarmcore_podman_executor.sockets import abort, new_client

API_VERSION = "4.0.0"
"""The lowest that speaks all that is asked here; newer services speak it too."""
API_PREFIX = f"/v{API_VERSION}/libpod"
DOCKER_PREFIX = "/v1.40"
"""Of the API that Podman serves beside its own."""
CONNECT_SECONDS = 10


class Engine(EngineCalls[Any]):
    """One Podman service at one unix socket. It may end while nobody asks it anything, and come back."""

    failures = (requests.RequestException, PodmanError)

    def __init__(self, address: str, host: Host | None = None, threads: Threads | None = None) -> None:
        super().__init__("Podman", address, EngineApi(address, DOCKER_PREFIX), threads)
        self.host = host if host is not None else Host()
        self._answers: set[Answer] = set()

    @classmethod
    async def connect(cls, address: str) -> Engine:
        """Ask the engine what it is; raises ConfigurationError where it does not answer, or is older than 4.0."""
        if not address.startswith("unix://"):
            raise ConfigurationError(f"engine address {address!r} must start with unix:// for Podman")
        engine = cls(address)
        try:
            engine.host = Host.of(await engine.call("GET", "/info", timeout=CONNECT_SECONDS))
        except (TemporaryError, EngineError) as error:
            await engine.aclose()
            raise ConfigurationError(
                f"no Podman engine answers at {address!r} ({_short(error)}); "
                "start `podman system service` or podman.socket, or change --engine-addr"
            ) from error
        except BaseException:
            await engine.aclose()
            raise
        if engine.host.rootless and os.geteuid() == 0:
            await engine.aclose()
            raise ConfigurationError(
                f"the Podman engine at {address!r} is rootless: run swarmd as its user, not as root"
            )
        return engine

    def events(self) -> ContainerEvents:
        """News of tasks' containers from now on; to be closed before the engine is."""
        return ContainerEvents(self.engine, self.address, f"{API_PREFIX}/events", NEWS)

    def _client(self, timeout: float | None) -> Any:
        return new_client(self.address, API_VERSION, timeout)

    def _ask(
        self,
        client: Any,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        timeout: float,
    ) -> requests.Response:
        return request(client, method, path, params=params, body=body, timeout=timeout)

    def _abort(self, client: Any) -> None:
        abort(client)

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str] | None = None, *, head_seconds: float | None = CALL_SECONDS
    ) -> AsyncIterator[Answer]:
        """A GET whose answer takes long, on a connection of its own and without a thread. Raises OSError."""
        async with ask(self.address, "GET", API_PREFIX + path, params=params, head_seconds=head_seconds) as answer:
            self._answers.add(answer)
            try:
                yield answer
            finally:
                self._answers.discard(answer)

    async def aclose(self) -> None:
        """End the streams and the calls that are under way."""
        for answer in self._answers:
            answer.abort()
        await super().aclose()


def request(
    client: Any,
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | tuple[float, float] | None = None,
    stream: bool = False,
) -> requests.Response:
    """One request of the package's client, whose answer is plain. Raises requests.RequestException."""
    options: dict[str, Any] = {"params": params, "headers": headers, "timeout": timeout, "stream": stream}
    if method == "POST":
        options["data"] = json.dumps(body) if body is not None else None
        options["headers"] = {**(headers or {}), "Content-Type": "application/json"}
    answer: requests.Response = getattr(client, method.lower())(path, **options)._response
    return answer


def _short(error: Exception) -> str:
    return reason_of(error) if isinstance(error, TemporaryError) else str(error)
