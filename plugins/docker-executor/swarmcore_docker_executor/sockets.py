"""Clients of the `docker` package whose unix sockets are reused, and closed when a connection fails.

The package keeps a connection for each URL, up to 25 in each client, though all lead to the same socket; and it loses
the socket of a connection that is refused, so that an engine which is away would cost a descriptor for each try.
"""

from __future__ import annotations

import socket
from typing import Any

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
    def _new_conn(self) -> Any:
        return _Connection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]


class _Adapter(UnixHTTPAdapter):
    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:
        with self.pools.lock:
            pool: _Pool | None = self.pools.get(ONE_POOL)
            if pool is None:
                pool = self.pools[ONE_POOL] = _Pool(ONE_POOL, self.socket_path, self.timeout, maxsize=1)
        return pool


def new_client(address: str, api_version: str, timeout: float | None) -> APIClient:
    """A client for one thread; connects to nothing yet. Close it."""
    client = APIClient(base_url=address, version=api_version, timeout=timeout)  # type: ignore[arg-type]
    if address.startswith("unix://"):
        replaced = client.adapters[SCHEME]
        client.mount(SCHEME, _Adapter(address.removeprefix("unix://"), timeout))  # type: ignore[arg-type]
        replaced.close()
    return client
