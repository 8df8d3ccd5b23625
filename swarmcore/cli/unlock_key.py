"""The unlock key on command lines: how it is written, and where it is read from without being seen."""

from __future__ import annotations

import base64
import binascii
from collections.abc import MutableMapping

from swarmcore.cli.secret_source import read_secret
from swarmcore.errors import ConfigurationError

PREFIX = "SWMKEY-1-"
VARIABLE = "SWARM_UNLOCK_KEY"
KEY_BYTES = 32


def format_unlock_key(key: bytes) -> str:
    """`SWMKEY-1-…`, as SwarmKit writes it."""
    return PREFIX + base64.b64encode(key).decode().rstrip("=")


def parse_unlock_key(text: str, source: str = "--unlock-key") -> bytes | None:
    """Read `SWMKEY-1-…`; None for an empty text. What was typed is never repeated in the error."""
    typed = text.strip()
    if not typed:
        return None
    encoded = typed.removeprefix(PREFIX)
    try:
        if encoded == typed:
            raise ValueError
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    # Compared with its own form: padding, unused bits and look-alikes are refused.
    if len(key) != KEY_BYTES or format_unlock_key(key) != typed:
        raise ConfigurationError(f"{source} is malformed: it starts with {PREFIX}, and must be complete")
    return key


def find_unlock_key(flag: str, file: str, environment: MutableMapping[str, str]) -> bytes | None:
    """The key that a node is started with: out of a flag, a file, or the environment, where it does not stay.

    Raises ConfigurationError in one line, without the key.
    """
    # Before anything else: what this node runs would get it too.
    inherited = environment.pop(VARIABLE, "")
    if flag and file:
        raise ConfigurationError("--unlock-key and --unlock-key-file exclude each other: drop one of them")
    if flag:
        return parse_unlock_key(flag)
    if file:
        key = parse_unlock_key(read_secret(file, "--unlock-key-file", "unlock key"), "what --unlock-key-file names")
        if key is None:
            raise ConfigurationError("what --unlock-key-file names is empty: it must hold the unlock key")
        return key
    return parse_unlock_key(inherited, VARIABLE)
