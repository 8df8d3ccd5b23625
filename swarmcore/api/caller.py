"""Who calls: set by the authorising interceptor for the length of one RPC, read by the services behind it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from swarmcore.api.types_pb2 import NodeRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The other side of one RPC, as its certificate or the socket it came through says."""

    node_id: str
    """Common name of the certificate; empty for a caller without one; this node's own id on the control socket."""
    role: NodeRole.ValueType | None
    """From the certificate's organisational unit; None without a certificate."""
    organization: str = ""
    """The cluster id in the certificate."""
    remote_addr: str = ""
    """IP address without port; empty on the control socket."""
    is_local: bool = False
    """Came through the control socket: this machine's root, trusted as this node."""
    is_forwarded: bool = False
    """Another manager passed the call on and vouches for the rest of this."""


_current: ContextVar[Caller | None] = ContextVar("swarmcore_caller", default=None)


def current_caller() -> Caller:
    """The caller of the RPC that runs in this context; raises LookupError outside of one."""
    caller = _current.get()
    if caller is None:
        raise LookupError("no caller: the authorising interceptor did not run")
    return caller


def set_caller(caller: Caller) -> None:
    """For the interceptor, and for tests that call a service directly."""
    _current.set(caller)
