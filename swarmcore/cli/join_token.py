"""The token that a node joins with: typed, in a file, or in the environment."""

from __future__ import annotations

from collections.abc import MutableMapping

from swarmcore.cli.secret_source import read_secret
from swarmcore.errors import ConfigurationError

VARIABLE = "SWARM_JOIN_TOKEN"


def find_join_token(flag: str, file: str, environment: MutableMapping[str, str], *, is_joined: bool = False) -> str:
    """Out of a flag, a file, or the environment, where it does not stay; empty where there is none.

    The file of a node that `is_joined` is not looked for: it needs no token any more, and its file may be gone.
    Raises ConfigurationError in one line, without the token.
    """
    inherited = environment.pop(VARIABLE, "")
    if flag and file:
        raise ConfigurationError("--join-token and --join-token-file exclude each other: drop one of them")
    if not file or is_joined:
        return flag or inherited.strip()
    token = read_secret(file, "--join-token-file", "join token").strip()
    if not token:
        raise ConfigurationError("what --join-token-file names is empty: it must hold a join token")
    return token
