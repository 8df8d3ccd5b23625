"""Clients of the `podman` package that use one connection each, lose no socket when the service is away, and can be
told to give up.

The package's connection forgets a socket that could not connect, which costs a descriptor until it is collected.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from urllib.parse import unquote, urlparse
from weakref import WeakSet

import requests
from podman.api.client import APIClient
from podman.api.uds import UDSAdapter, UDSConnection, UDSConnectionPool, UDSPoolManager


class _Connection(UDSConnection):
    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(unquote(urlparse(self.uds).netloc))
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class _Pool(UDSConnectionPool):
    ConnectionCls = _Connection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made: WeakSet[_Connection] = WeakSet()

    def _new_conn(self) -> Any:
        connection = super()._new_conn()
        self.made.add(connection)  # type: ignore[arg-type]
        return connection


class _Pools(UDSPoolManager):
    def __init__(self, num_pools: int = 1, headers: Any = None, **kwargs: Any) -> None:
        super().__init__(num_pools, headers, **kwargs)  # type: ignore[no-untyped-call]
        self.pool_classes_by_scheme = {"http": _Pool}


class _Adapter(UDSAdapter):
    is_aborted = False

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        self.poolmanager = _Pools(num_pools=connections, maxsize=maxsize, block=block, **kwargs, **self._pool_kwargs)

    def send(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_aborted:
            raise requests.ConnectionError("the executor was closed")
        return super().send(*args, **kwargs)

    def abort(self) -> None:
        self.is_aborted = True
        pools = self.poolmanager.pools if self.poolmanager is not None else {}
        for key in list(pools.keys()):
            for connection in list(getattr(pools.get(key), "made", ())):
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)


def new_client(address: str, version: str, timeout: float | None) -> Any:
    """A client for one thread; connects to nothing yet. Close it."""
    client = APIClient(base_url=address, version=version, timeout=timeout)
    replaced = client.adapters.pop("http://"), client.adapters.pop("https://")
    client.mount("http://", _Adapter(client.base_url.geturl(), pool_connections=1, pool_maxsize=1))
    for adapter in replaced:
        adapter.close()
    return client


def abort(client: Any) -> None:
    """End what `client` is just asking, on whichever thread: that raises requests.RequestException there."""
    client.adapters["http://"].abort()
