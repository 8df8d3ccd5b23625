"""Calls to one Docker Engine from an event loop: a thread pool of its own, raw requests, errors in the engine's words.

The `docker` package's client is not thread-safe, so each thread has one; its typed helpers drop fields silently, so
requests are dictionaries as the engine's API documents them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import docker.errors
import requests
from docker.api.client import APIClient

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.engine_exec import EngineApi
from swarmcore.plugin.executor import ExecutorError, TemporaryError
from swarmcore.plugin.threads import Threads
from swarmcore_docker_executor.host import Host
from swarmcore_docker_executor.sockets import new_client

T = TypeVar("T")

LOWEST_API = "1.24"
"""For the first question, which no version counts for."""
CONNECT_SECONDS = 10
CALL_SECONDS = 60
THREADS = 8


class EngineError(ExecutorError):
    """The engine answered with an error; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Engine:
    """One engine at one address."""

    def __init__(self, address: str, api_version: str, threads: Threads | None = None) -> None:
        self.address = address
        self.api_version = api_version
        self.host = Host()
        self.http = EngineApi(address, f"/v{api_version}")
        """For requests that need no thread."""
        self._threads = threads if threads is not None else Threads(THREADS, "docker")
        self._clients = threading.local()
        self._open: list[APIClient] = []
        """Every thread's client, to be closed at the end; appended to by the threads (one operation, so no lock)."""

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
            engine.http = EngineApi(address, f"/v{engine.api_version}")
            engine.host = Host.of(await engine.call("GET", "/info", timeout=CONNECT_SECONDS) or {})
            return engine
        except (docker.errors.DockerException, requests.RequestException, OSError, ExecutorError) as error:
            await engine.aclose()
            raise ConfigurationError(
                f"no Docker engine answers at {address!r} ({reason_of(error)}); start it or change --engine-addr"
            ) from error

    @property
    def api(self) -> tuple[int, int]:
        major, minor = self.api_version.split(".")[:2]
        return int(major), int(minor)

    def client(self, timeout: float | None = CALL_SECONDS) -> APIClient:
        """A client of the caller's own, for a stream that lasts; close it."""
        return new_client(self.address, self.api_version, timeout)

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Any:
        """One short request; returns the decoded JSON, or None where the answer has no body.

        Raises EngineError for an answer above 399 (a 304 is returned as None) and TemporaryError where none came
        or the engine is just starting or ending.
        """

        def send() -> Any:
            client: APIClient | None = getattr(self._clients, "client", None)
            if client is None:
                client = self._clients.client = self.client()
                self._open.append(client)
            url = f"{client.base_url}/v{self.api_version}{path}"
            try:
                response = client.request(method, url, params=params, json=body, timeout=timeout)
            except requests.RequestException as error:
                raise TemporaryError(
                    f"no answer from the Docker engine at {self.address}: {reason_of(error)}"
                ) from error
            if response.status_code == 503:
                raise TemporaryError(f"the Docker engine at {self.address} is not ready: {message_of(response)}")
            if response.status_code >= 400:
                raise EngineError(response.status_code, message_of(response))
            return _body(response)

        return await self.run(send)

    async def run(self, function: Callable[[], T]) -> T:
        """Run a blocking function on the engine's threads."""
        return await self._threads.run(function)

    async def aclose(self) -> None:
        self._threads.close()
        for client in self._open:
            client.close()


def _body(response: requests.Response) -> Any:
    if not response.content:
        return None
    if "json" in response.headers.get("Content-Type", ""):
        return response.json()
    return None


def message_of(response: requests.Response) -> str:
    try:
        told = response.json()
    except ValueError:
        told = {}
    text = told.get("message") if isinstance(told, dict) else None
    return str(text or response.text or response.reason).strip()


def reason_of(error: Exception) -> str:
    """The innermost reason in one line: requests wraps an errno three times."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).splitlines()[0]
