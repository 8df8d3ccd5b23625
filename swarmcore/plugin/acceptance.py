"""Acceptance policies: who may join the cluster, and as what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from swarmcore.api.types_pb2 import NodeRole


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """What a node that has no certificate sends, and what the manager knows. Its `repr` holds no secret."""

    token: str = field(repr=False)
    csr: bytes
    remote_addr: str
    """The caller's IP address as the one port saw it; empty when unknown."""
    cluster_id: str
    ca_digest: str
    worker_token: str = field(repr=False)
    manager_token: str = field(repr=False)
    requested_role: NodeRole.ValueType | None = None
    config: str = field(default="", repr=False)
    """The operator's configuration of this policy (for `auto`: the roles or networks), as typed."""


@dataclass(frozen=True, slots=True)
class Accept:
    role: NodeRole.ValueType


@dataclass(frozen=True, slots=True)
class Pending:
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str


@dataclass(frozen=True, slots=True)
class Abstain:
    """Nothing to say about this request."""


Verdict: TypeAlias = Accept | Pending | Reject | Abstain


class AcceptancePolicy(ABC):
    """One link of the cluster's chain. All links run, each within 2 s; an error or a timeout is never an Accept.

    Any Reject rejects, else the first Accept accepts, else the node waits as PENDING.
    """

    name: str
    may_grant: frozenset[NodeRole.ValueType]

    @abstractmethod
    async def evaluate(self, request: JoinRequest) -> Verdict:
        """Judge one request. Compares secrets in constant time."""


class JoinMethod(Protocol):
    """The joining node's half: what goes into the token field of the certificate request."""

    name: str

    def credential(self, *, csr: bytes, ca_digest: str, role: NodeRole.ValueType, secret: str) -> str: ...
