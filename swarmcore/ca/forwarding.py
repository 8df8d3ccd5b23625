"""Calls that any manager takes and the leader answers: which ones, and how the caller's identity goes along.

The metadata has SwarmKit's names, so that managers of both kinds understand each other (SwarmKit: 1.5). It is believed
only on a connection whose own certificate is a manager's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

from swarmcore.api.caller import Caller
from swarmcore.api.metadata import OUTCOME
from swarmcore.ca.root import OU_OF_ROLE, ROLE_OF_OU
from swarmcore.errors import PermissionDeniedError, UnavailableError

LEADERS_SERVICES = (
    "/docker.swarmkit.v1.CA/",
    "/docker.swarmkit.v1.NodeCA/",
    "/docker.swarmkit.v1.Control/",
    "/docker.swarmkit.v1.Dispatcher/",
    "/docker.swarmkit.v1.Logs/",
    "/docker.swarmkit.v1.LogBroker/",
    "/swarmcore.v1.TaskAccess/",
    "/swarmcore.v1.TaskAccessBroker/",
    "/swarmcore.v1.Raft/Join",
    "/swarmcore.v1.Raft/Leave",
)
FORWARDED = "forwarded_cert"
NODE = "forwarded_cert_cn"
CLUSTER = "forwarded_cert_org"
ROLE = "forwarded_cert_ou"
ADDRESS = "remote_addr"

Metadata = tuple[tuple[str, str], ...]


READS = ("/docker.swarmkit.v1.Control/Get", "/docker.swarmkit.v1.Control/List")
READ_PATIENCE_SECONDS = 1.0
"""So long a read waits for a leader; then this manager's own store has to do."""


class BecameLeader(Exception):
    """While the call waited for a leader, this manager became it."""


class NoLeaderError(UnavailableError):
    """No leader appeared in time. The text says how many managers are needed, and which are silent."""


class Forwarder(Protocol):
    """The way to the leader."""

    @property
    def is_leader(self) -> bool:
        """Whether this manager answers by itself."""
        ...

    async def unary(self, method: str, request: bytes, metadata: Metadata, timeout: float | None) -> bytes:
        """The leader's answer. Raises AioRpcError as the leader gave it, NoLeaderError, BecameLeader.

        A read waits for a leader for `READ_PATIENCE_SECONDS`, everything else for 4.5 s.
        """
        ...

    def stream(self, method: str, request: bytes | AsyncIterator[bytes], metadata: Metadata) -> AsyncIterator[bytes]:
        """The leader's answers to one request or to a stream of them, for as long as it leads. Raises as `unary`.

        Nothing is taken from a stream before there is a leader to pass it on to.
        """
        ...


def is_leaders(method: str) -> bool:
    """Whether the leader has to answer this method."""
    return method.startswith(LEADERS_SERVICES)


def is_read(method: str) -> bool:
    """Whether the method changes nothing, and this manager's own store can answer it where there is no leader."""
    return method.startswith(READS)


def outcome(error: object) -> str:
    """What a manager said of its error; empty where the answer is not a manager's."""
    trailing: Callable[[], Iterable[tuple[str, str | bytes]] | None] = getattr(error, "trailing_metadata", lambda: None)
    return next((str(value) for key, value in trailing() or () if key == OUTCOME), "")


def metadata_of(caller: Caller) -> Metadata:
    """What tells the leader who called. A caller without a certificate is told as such, and gains nothing."""
    role = OU_OF_ROLE[caller.role] if caller.role is not None else ""
    return (
        (FORWARDED, "true"),
        (NODE, caller.node_id),
        (CLUSTER, caller.organization),
        (ROLE, role),
        (ADDRESS, caller.remote_addr),
    )


def forwarded_caller(metadata: Iterable[tuple[str, str | bytes]]) -> Caller | None:
    """Whom a manager passed a call on for; None for a call of its own. Raises PermissionDeniedError."""
    found = {key: value for key, value in metadata if key.startswith(FORWARDED) or key == ADDRESS}
    if found.get(FORWARDED) != "true":
        return None
    node, cluster, ou, address = (str(found.get(key, "")) for key in (NODE, CLUSTER, ROLE, ADDRESS))
    if not node and not ou:
        return Caller(node_id="", role=None, remote_addr=address, is_forwarded=True)
    role = ROLE_OF_OU.get(ou)
    if role is None or not node or max(map(len, (node, cluster, address))) > 256:
        raise PermissionDeniedError("the forwarded identity names no node of a known role")
    return Caller(node_id=node, role=role, organization=cluster, remote_addr=address, is_forwarded=True)
