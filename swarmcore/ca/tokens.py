"""Join tokens and unlock keys: strict to read, random to make, compared in constant time (SwarmKit: 10.2)."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass

from swarmcore.api.ids import base36
from swarmcore.api.types_pb2 import JoinTokens, NodeRole
from swarmcore.errors import InvalidArgumentError

DIGEST_DIGITS = 50
SECRET_DIGITS = 25
SECRET_BYTES = 16
UNLOCK_KEY_BYTES = 32

_TOKEN_PREFIX = "SWMTKN"  # noqa: S105 - what every token starts with
_MAX_TOKEN = 128
_DIGITS = re.compile(r"[0-9a-z]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """What a joining node knows: which root to trust, and the secret that stands for a role."""

    ca_digest: str
    """SHA-256 of the root CA's PEM bytes, in hexadecimal."""
    secret: str
    version: int = 1
    fips: bool = False

    def __repr__(self) -> str:
        return f"JoinToken(version={self.version}, ca_digest={self.ca_digest!r}, secret=...)"

    def __str__(self) -> str:
        digest = base36(int(self.ca_digest, 16), DIGEST_DIGITS)
        flag = f"{int(self.fips)}-" if self.version == 2 else ""
        return f"{_TOKEN_PREFIX}-{self.version}-{flag}{digest}-{self.secret}"


def new_join_token(ca_digest: str, *, fips: bool = False) -> str:
    """A token with a fresh secret for the root CA of that digest (hexadecimal)."""
    secret = base36(int.from_bytes(secrets.token_bytes(SECRET_BYTES), "big"), SECRET_DIGITS)
    return str(JoinToken(ca_digest=ca_digest, secret=secret, version=2 if fips else 1, fips=fips))


def parse_join_token(text: str) -> JoinToken:
    """Read a token; raises InvalidArgumentError, whose text never repeats the token."""
    if len(text) > _MAX_TOKEN:
        raise InvalidArgumentError("the join token is too long: copy it again, whole and alone")
    parts = text.split("-")
    if parts[0] != _TOKEN_PREFIX or len(parts) < 2:
        raise InvalidArgumentError("the join token does not start with 'SWMTKN-': copy it again, whole")
    if parts[1] not in ("1", "2"):
        raise InvalidArgumentError("the join token has an unknown version: this node reads 1 and 2")
    version = int(parts[1])
    if len(parts) != 3 + version:
        raise InvalidArgumentError(f"the join token has {len(parts)} parts instead of {3 + version}: copy it again")
    fips = False
    if version == 2:
        if parts[2] not in ("0", "1"):
            raise InvalidArgumentError("the join token's flag is neither 0 nor 1: copy it again")
        fips = parts[2] == "1"
    digest, secret = parts[-2:]
    if len(digest) != DIGEST_DIGITS or len(secret) != SECRET_DIGITS:
        raise InvalidArgumentError("the join token is incomplete: copy it again, whole")
    if not _DIGITS.fullmatch(digest) or not _DIGITS.fullmatch(secret):
        raise InvalidArgumentError("the join token has characters other than 0-9 and a-z: copy it again")
    number = int(digest, 36)
    if number >= 1 << 256 or int(secret, 36) >= 1 << 8 * SECRET_BYTES:
        raise InvalidArgumentError("the join token is not one that a manager made: copy it again")
    return JoinToken(ca_digest=f"{number:064x}", secret=secret, version=version, fips=fips)


def same_secret(left: str, right: str) -> bool:
    """Compare in constant time. An empty secret is equal to nothing."""
    return bool(left) and hmac.compare_digest(left.encode(), right.encode())


def role_of_token(token: str, tokens: JoinTokens) -> NodeRole.ValueType | None:
    """The role a token stands for in a cluster with these `tokens`; None for a wrong one."""
    is_manager = same_secret(token, tokens.manager)
    is_worker = same_secret(token, tokens.worker)
    if is_manager:
        return NodeRole.MANAGER
    return NodeRole.WORKER if is_worker else None


def rotate_join_tokens(
    tokens: JoinTokens, *, ca_digest: str, worker: bool, manager: bool, fips: bool = False
) -> JoinTokens:
    """New tokens, with a fresh one for each role named. `tokens` is left as it is."""
    return JoinTokens(
        worker=new_join_token(ca_digest, fips=fips) if worker else tokens.worker,
        manager=new_join_token(ca_digest, fips=fips) if manager else tokens.manager,
    )


def new_unlock_key() -> bytes:
    """A random key that wraps a manager's key and log keys."""
    return secrets.token_bytes(UNLOCK_KEY_BYTES)
