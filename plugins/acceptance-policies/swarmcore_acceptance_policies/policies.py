"""`token`: SwarmKit's join tokens. `auto`: nodes of the networks it lists. `manual`: the operator decides."""

from __future__ import annotations

import hmac
import ipaddress

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.plugin.acceptance import Abstain, Accept, AcceptancePolicy, JoinRequest, Pending, Reject, Verdict
from swarmcore_acceptance_policies.rules import choose, split

JOIN_TOKEN = "SWMTKN-"  # noqa: S105 - what every join token starts with
WRONG_TOKEN = "A valid join token is necessary to join this cluster"  # noqa: S105 - a message
OFF = "off"


def same(left: str, right: str) -> bool:
    """Compare in constant time. An empty secret is equal to nothing."""
    return bool(left) and hmac.compare_digest(left.encode(), right.encode())


class Token(AcceptancePolicy):
    """Accepts the cluster's join tokens and rejects wrong ones; has nothing to say about anything else.

    Configuration: `worker` or `manager` to honour the tokens of that role only; `off` to honour none.
    """

    name = "token"
    may_grant = frozenset({NodeRole.WORKER, NodeRole.MANAGER})

    async def evaluate(self, request: JoinRequest) -> Verdict:
        roles, rest = split(request.config)
        if not request.token.startswith(JOIN_TOKEN):
            return Abstain()
        # Both are compared, whatever the first says, so that the time tells nothing.
        is_manager = same(request.token, request.manager_token)
        is_worker = same(request.token, request.worker_token)
        role = NodeRole.MANAGER if is_manager else NodeRole.WORKER if is_worker else None
        if role is None or OFF in rest or (roles and role not in roles):
            return Reject(WRONG_TOKEN)
        return Accept(role)


class Auto(AcceptancePolicy):
    """Accepts nodes without a token.

    Configuration: roles (default `worker`) and networks (default: every address), such as `worker,10.0.0.0/8`.
    """

    name = "auto"
    may_grant = frozenset({NodeRole.WORKER})

    async def evaluate(self, request: JoinRequest) -> Verdict:
        if request.token:
            return Abstain()
        roles, rest = split(request.config)
        networks = [ipaddress.ip_network(word, strict=False) for word in rest]
        if networks:
            try:
                address = ipaddress.ip_address(request.remote_addr)
            except ValueError:
                return Abstain()
            if not any(address in network for network in networks):
                return Abstain()
        return Accept(choose(roles or self.may_grant, request.requested_role))


class Manual(AcceptancePolicy):
    """Lets a node without a token wait until the operator accepts or rejects it."""

    name = "manual"
    may_grant = frozenset[NodeRole.ValueType]()

    async def evaluate(self, request: JoinRequest) -> Verdict:
        return Abstain() if request.token else Pending("waits to be accepted by the operator")
