"""Calls to one Podman service from an event loop: a thread pool of its own, raw requests, errors in the engine's words.

The `podman` package's client is not thread-safe, so each thread has one; its typed helpers drop fields silently, so
requests are dictionaries as the libpod API documents them.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import requests
from podman.errors import PodmanError

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.engine_exec import EngineApi
from swarmcore.plugin.engine_http import Answer, ask
from swarmcore.plugin.executor import ExecutorError, TemporaryError
from swarmcore.plugin.threads import Threads
from swarmcore_podman_executor.host import Host
from swarmcore_podman_executor.sockets import abort, new_client

T = TypeVar("T")

API_VERSION = "4.0.0"
"""The lowest that speaks all that is asked here; newer services speak it too."""
API_PREFIX = f"/v{API_VERSION}/libpod"
DOCKER_PREFIX = "/v1.40"
"""Of the API that Podman serves beside its own."""
CONNECT_SECONDS = 10
CALL_SECONDS = 60
THREADS = 8


class EngineError(ExecutorError):
    """The engine answered with an error; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Engine:
    """One Podman service at one unix socket. It may end while nobody asks it anything, and come back."""

    def __init__(self, address: str, host: Host | None = None, threads: Threads | None = None) -> None:
        self.address = address
        self.host = host if host is not None else Host()
        self._threads = threads if threads is not None else Threads(THREADS, "podman")
        self.docker_api = EngineApi(address, DOCKER_PREFIX)
        """For what is the same on both engines, without threads."""
        self._clients = threading.local()
        self._answers: set[Answer] = set()
        self._open: list[Any] = []
        """Every thread's client, to be closed at the end; appended to by the threads (one operation, so no lock)."""

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

    def client(self, timeout: float | None = CALL_SECONDS) -> Any:
        """A client of the caller's own, for a request that lasts; close it."""
        return new_client(self.address, API_VERSION, timeout)

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
            client = getattr(self._clients, "client", None)
            if client is None:
                client = self._clients.client = self.client()
                self._open.append(client)
            try:
                response = request(client, method, path, params=params, body=body, timeout=timeout)
            except (requests.RequestException, PodmanError) as error:
                raise self.away(error) from error
            if response.status_code == 503:
                raise TemporaryError(f"the Podman engine at {self.address} is not ready: {message_of(response)}")
            if response.status_code >= 400:
                raise EngineError(response.status_code, message_of(response))
            return _body(response)

        return await self.run(send)

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

    def away(self, error: Exception) -> TemporaryError:
        """What is raised where no answer came."""
        return TemporaryError(f"no answer from the Podman engine at {self.address}: {reason_of(error)}")

    async def run(self, function: Callable[[], T]) -> T:
        """Run a blocking function on the engine's threads."""
        return await self._threads.run(function)

    async def aclose(self) -> None:
        """End the streams and the calls that are under way."""
        self._threads.close()
        for answer in self._answers:
            answer.abort()
        for client in self._open:
            abort(client)
            client.close()


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


def reason_of(error: BaseException) -> str:
    """The innermost reason in one line: requests wraps an errno three times."""
    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).splitlines()[0]


def _short(error: Exception) -> str:
    return reason_of(error) if isinstance(error, TemporaryError) else str(error)
