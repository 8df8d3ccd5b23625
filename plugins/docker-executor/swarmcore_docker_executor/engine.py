"""Calls to one Docker Engine from an event loop: a thread pool of its own, raw requests, errors in the engine's words.

The `docker` package's client is not thread-safe, so each thread has one; its typed helpers drop fields silently, so
requests are dictionaries as the engine's API documents them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker.errors
import requests
from docker.api.client import APIClient

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.executor import ExecutorError, TemporaryError

T = TypeVar("T")

CALL_SECONDS = 60
THREADS = 10


class EngineError(ExecutorError):
    """The engine answered with an error; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Engine:
    """One engine at one address."""

    def __init__(self, address: str, api_version: str) -> None:
        self.address = address
        self.api_version = api_version
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._clients = threading.local()
        self._open: list[APIClient] = []
        """Every thread's client, to be closed at the end; appended to by the threads (one operation, so no lock)."""
        self._pulls: dict[tuple[str, str], asyncio.Task[None]] = {}

    @classmethod
    async def connect(cls, address: str) -> Engine:
        """Ask the engine for its API version; raises ConfigurationError where it does not answer."""

        def version() -> str:
            _probe(address)
            client = APIClient(base_url=address, version="auto", timeout=10)
            try:
                return str(client.api_version)
            finally:
                client.close()

        try:
            return cls(address, await asyncio.to_thread(version))
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise ConfigurationError(
                f"no Docker engine answers at {address!r} ({_reason(error)}); start it or change --engine-addr"
            ) from error

    @property
    def api(self) -> tuple[int, int]:
        major, minor = self.api_version.split(".")[:2]
        return int(major), int(minor)

    def client(self, timeout: int | None = CALL_SECONDS) -> APIClient:
        """A client of the caller's own, for a stream that lasts; close it."""
        return APIClient(base_url=self.address, version=self.api_version, timeout=timeout)  # type: ignore[arg-type]

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

        Raises EngineError for an answer above 399 (a 304 is returned as None) and TemporaryError where none came.
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
                raise TemporaryError(f"no answer from the Docker engine at {self.address}: {_reason(error)}") from error
            if response.status_code >= 400:
                raise EngineError(response.status_code, _message(response))
            return _body(response)

        return await self.run(send)

    async def run(self, function: Callable[[], T]) -> T:
        """Run a blocking function on the engine's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def pull(self, image: str, registry_auth: str) -> None:
        """Pull an image; callers that want the same one at the same time share one pull, and survive each other.

        Raises EngineError with the registry's words, and TemporaryError where the engine is away.
        """
        key = (image, registry_auth)
        task = self._pulls.get(key)
        if task is None:
            task = asyncio.create_task(self._pull(image, registry_auth), name=f"pull {image}")
            self._pulls[key] = task
            task.add_done_callback(lambda done: self._pull_ended(key, done))
        await asyncio.shield(task)

    def _pull_ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._pulls.pop(key, None)
        if not task.cancelled():
            task.exception()  # every caller may have been cancelled; the error was theirs

    async def _pull(self, image: str, registry_auth: str) -> None:
        def read() -> None:
            client = self.client(timeout=None)
            headers = {"X-Registry-Auth": registry_auth} if registry_auth else {}
            try:
                response = client.post(
                    f"{client.base_url}/v{self.api_version}/images/create",
                    params=pull_parameters(image),
                    headers=headers,
                    stream=True,
                    timeout=(10, 300),
                )
                if response.status_code >= 400:
                    raise EngineError(response.status_code, _message(response))
                # The answer is 200 even when the pull fails: the error is a line of the stream.
                for line in response.iter_lines():
                    told = json.loads(line) if line else {}
                    if "error" in told:
                        raise EngineError(500, str(told["error"]))
            except requests.RequestException as error:
                raise TemporaryError(f"no answer from the Docker engine at {self.address}: {_reason(error)}") from error
            finally:
                client.close()

        await self.run(read)

    async def aclose(self) -> None:
        for task in list(self._pulls.values()):
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._open:
            client.close()


def _probe(address: str) -> None:
    """Raise OSError where nothing listens: the `docker` package loses the socket of a connection that fails."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(10)
            probe.connect(address.removeprefix("unix://"))


def pull_parameters(image: str) -> dict[str, str]:
    """Split a reference for the engine, which would pull every tag of a bare name."""
    name, at, digest = image.partition("@")
    if at:
        return {"fromImage": name, "tag": digest}
    head, slash, last = name.rpartition("/")
    base, colon, tag = last.partition(":")
    return {"fromImage": f"{head}{slash}{base}", "tag": tag if colon else "latest"}


def _body(response: requests.Response) -> Any:
    if not response.content:
        return None
    if "json" in response.headers.get("Content-Type", ""):
        return response.json()
    return None


def _message(response: requests.Response) -> str:
    try:
        told = response.json()
    except ValueError:
        told = {}
    text = told.get("message") if isinstance(told, dict) else None
    return str(text or response.text or response.reason).strip()


def _reason(error: Exception) -> str:
    """The innermost reason in one line: requests wraps an errno three times."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).splitlines()[0]
