"""Clients of the `docker` package whose unix sockets are reused, closed when a connection fails, and can be told to
give up.

The package keeps a connection for each URL, up to 25 in each client, though all lead to the same socket; and it loses
the socket of a connection that is refused, so that an engine which is away would cost a descriptor for each try.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from weakref import WeakSet

import requests
from docker.api.client import APIClient
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool

SCHEME = "http+docker://"
ONE_POOL = "engine"


class _Connection(UnixHTTPConnection):
    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self.unix_socket)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class _Pool(UnixHTTPConnectionPool):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made: WeakSet[_Connection] = WeakSet()

    def _new_conn(self) -> Any:
        connection = _Connection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]
        self.made.add(connection)
        return connection


class _Adapter(UnixHTTPAdapter):
    is_aborted = False

    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:
        with self.pools.lock:
            pool: _Pool | None = self.pools.get(ONE_POOL)
            if pool is None:
                pool = self.pools[ONE_POOL] = _Pool(ONE_POOL, self.socket_path, self.timeout, maxsize=1)
        return pool

    def send(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_aborted:
            raise requests.ConnectionError("the executor was closed")
        return super().send(*args, **kwargs)

    def abort(self) -> None:
        self.is_aborted = True
        pool = self.pools.get(ONE_POOL)
        for connection in list(pool.made) if pool is not None else ():
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


def new_client(address: str, api_version: str, timeout: float | None) -> APIClient:
    """A client for one thread; connects to nothing yet. Close it."""
    client = APIClient(base_url=address, version=api_version, timeout=timeout)  # type: ignore[arg-type]
    if address.startswith("unix://"):
        replaced = client.adapters[SCHEME]
        client.mount(SCHEME, _Adapter(address.removeprefix("unix://"), timeout))  # type: ignore[arg-type]
        replaced.close()
        # Proxies and passwords of the environment are not for a socket, and looking for them takes time.
        client.trust_env = False
    return client


def abort(client: APIClient) -> None:
    """End what `client` is just asking, on whichever thread: that raises requests.RequestException there.

    On TCP it goes on until it is answered.
    """
    adapter = client.adapters.get(SCHEME)
    if isinstance(adapter, _Adapter):
        adapter.abort()
