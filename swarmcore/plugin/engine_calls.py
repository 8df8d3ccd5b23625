"""Short calls to one container engine from an event loop, errors in the engine's words.

The clients of the engines' packages block and are not thread-safe, so each call is made on a thread that has a client
of its own. Their typed helpers drop fields silently, so requests are dictionaries as the engine's API documents them.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from swarmcore.plugin.engine_exec import EngineApi
from swarmcore.plugin.engine_http import words_of
from swarmcore.plugin.executor import ExecutorError, TemporaryError
from swarmcore.plugin.threads import Threads

CALL_SECONDS: Final = 60
THREADS: Final = 8
END_SECONDS: Final = 2.0

T = TypeVar("T")


class EngineError(ExecutorError):
    """The engine answered with an error; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Client(Protocol):
    """A package's client."""

    def close(self) -> None: ...


class Response(Protocol):
    """An answer as `requests` gives it, whose body has been read."""

    status_code: int
    reason: str
    headers: Any

    @property
    def content(self) -> Any: ...

    @property
    def text(self) -> str: ...

    def json(self) -> Any: ...


C = TypeVar("C", bound=Client)


class EngineCalls(ABC, Generic[C]):
    """One engine at one address. Subclasses say what a client is and how it asks."""

    failures: tuple[type[Exception], ...] = (OSError,)
    """What the package raises where no answer came."""

    def __init__(self, engine: str, address: str, api: EngineApi, threads: Threads | None = None) -> None:
        """`engine` is its name, for messages."""
        self.engine = engine
        self.address = address
        self.api = api
        """For requests that both engines know, and that need no thread."""
        self._threads = threads if threads is not None else Threads(THREADS, engine.lower())
        self._threads.at_end = self._end_own_client
        self._local = threading.local()
        self._lock = threading.Lock()
        self._clients: list[C] = []
        """Those in use. Under the lock, as is:"""
        self._is_closed = False

    @abstractmethod
    def _client(self, timeout: float | None) -> C:
        """Make a client; it connects to nothing yet."""

    @abstractmethod
    def _ask(
        self,
        client: C,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Response:
        """One request; raises one of `failures` where no answer comes."""

    @abstractmethod
    def _abort(self, client: C) -> None:
        """End what the client is just asking on its thread, which gets one of `failures`, and all that it is asked."""

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
            try:
                answer = self._ask(self._own_client(), method, path, params, body, timeout)
            except self.failures as error:
                raise self.away(error) from error
            if answer.status_code == 503:
                raise TemporaryError(f"the {self.engine} engine at {self.address} is not ready: {message_of(answer)}")
            if answer.status_code >= 400:
                raise EngineError(answer.status_code, message_of(answer))
            is_json = bool(answer.content) and "json" in answer.headers.get("Content-Type", "")
            return answer.json() if is_json else None

        return await self.run(send)

    @contextlib.contextmanager
    def lasting(self) -> Iterator[C]:
        """A client for a request that lasts, on the caller's thread; the request ends at the latest with this object.

        Raises TemporaryError where that is closed.
        """
        client = self._new_client(None)
        try:
            yield client
        finally:
            self._end(client)

    async def run(self, function: Callable[[], T]) -> T:
        """Run a blocking function on the engine's threads."""
        return await self._threads.run(function)

    def away(self, error: Exception) -> TemporaryError:
        """What is raised where no answer came."""
        return TemporaryError(f"no answer from the {self.engine} engine at {self.address}: {reason_of(error)}")

    async def aclose(self) -> None:
        """End the calls that are under way, and the threads with their connections; waits for them a little."""
        with self._lock:
            self._is_closed = True
            self._threads.close()
            for client in self._clients:
                self._abort(client)
        await self._threads.wait_ended(END_SECONDS)

    def _own_client(self) -> C:
        """The client of this thread."""
        found: C | None = getattr(self._local, "client", None)
        if found is None:
            found = self._local.client = self._new_client(CALL_SECONDS)
        return found

    def _end_own_client(self) -> None:
        client: C | None = getattr(self._local, "client", None)
        if client is not None:
            self._end(client)

    def _new_client(self, timeout: float | None) -> C:
        with self._lock:
            if self._is_closed:
                raise TemporaryError("the executor was closed")
            client = self._client(timeout)
            self._clients.append(client)
        return client

    def _end(self, client: C) -> None:
        """Close a client: only its own thread does, so none is closed while it is used."""
        with self._lock:
            self._clients.remove(client)
        client.close()


def message_of(answer: Response) -> str:
    """What an engine says in an error."""
    try:
        told = answer.json()
    except ValueError:
        told = {}
    text = told.get("message") if isinstance(told, dict) else None
    return str(text or answer.text or answer.reason).strip()


def reason_of(error: BaseException) -> str:
    """The innermost reason in one line: packages wrap an errno several times."""
    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return words_of(cause)
