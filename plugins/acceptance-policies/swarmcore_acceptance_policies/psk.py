"""`psk`: a key that both sides hold. The key never crosses the wire, and what does is worth nothing to a listener.

The joining node sends `SWMPSK-1-` and the HMAC-SHA256 under the key of the root CA's digest, the role and its
certificate request. A replay gets a certificate for the same request, which is of use only to who has its private key.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.plugin.acceptance import Abstain, Accept, AcceptancePolicy, JoinRequest, Reject, Verdict
from swarmcore_acceptance_policies.rules import split

PREFIX = "SWMPSK-1-"
MIN_KEY_CHARACTERS = 16
WRONG_KEY = "the pre-shared key is not this cluster's, or does not stand for this role"


def credential(*, csr: bytes, ca_digest: str, role: NodeRole.ValueType, secret: str) -> str:
    """What the joining node sends in place of a token."""
    parts = (b"swarmcore psk 1", ca_digest.encode(), NodeRole.Name(role).encode(), csr)
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return PREFIX + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def read_key(word: str) -> str:
    """The key itself, or the first line of the file that `@path` names. Raises ValueError for a short one."""
    key = Path(word[1:]).read_text().partition("\n")[0].strip() if word.startswith("@") else word
    if len(key) < MIN_KEY_CHARACTERS:
        raise ValueError(f"a pre-shared key has at least {MIN_KEY_CHARACTERS} characters")
    return key


class PreSharedKey(AcceptancePolicy):
    """Accepts nodes that hold the key.

    Configuration: the key or `@file`, and roles (default `worker`), such as `worker,manager,@/etc/swarm.psk`.
    """

    name = "psk"
    may_grant = frozenset({NodeRole.WORKER})

    async def evaluate(self, request: JoinRequest) -> Verdict:
        if not request.token.startswith(PREFIX):
            return Abstain()
        roles, rest = split(request.config)
        if len(rest) != 1:
            raise ValueError("psk needs one key in its configuration, such as psk:@/etc/swarm.psk")
        key = read_key(rest[0])
        for role in sorted(roles or self.may_grant, reverse=True):
            expected = credential(csr=request.csr, ca_digest=request.ca_digest, role=role, secret=key)
            if hmac.compare_digest(expected.encode(), request.token.encode()):
                return Accept(role)
        return Reject(WRONG_KEY)


class PreSharedKeyJoin:
    """The joining node's half: `swarmd --join-token psk:KEY`, `psk:manager,KEY`, `psk:@file`."""

    name = "psk"

    def credential(self, *, csr: bytes, ca_digest: str, role: NodeRole.ValueType, secret: str) -> str:
        return credential(csr=csr, ca_digest=ca_digest, role=role, secret=read_key(secret))
