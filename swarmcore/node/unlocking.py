"""Finds what a locked manager's private key is opened with, and removes what a manager leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from swarmcore.ca.root import unseal_key
from swarmcore.errors import ConfigurationError
from swarmcore.replication.durable import sync_folder
from swarmcore.replication.keys import WRONG_KEY
from swarmcore.replication.state_folder import KEY_FILE, gone, has_state, read_identity_keys

_OR_LOCKED = "; only who was stopped while it became a manager of a locked cluster needs --unlock-key-file instead"


def find_secret(raft: Path, unlock_key: bytes | None, key_pem: bytes) -> bytes | None:
    """What opens the sealed private key `key_pem` of the manager whose log is in `raft`; None where it is damaged.

    Raises ConfigurationError where that needs another unlock key than this one, and has changed nothing then.
    """
    has_log = has_state(raft)
    known = read_identity_keys(raft, unlock_key) if has_log else []
    for secret in (*known, *([unlock_key] if unlock_key is not None else [])):
        try:
            unseal_key(key_pem, secret)
        except ConfigurationError:
            continue
        return secret
    if not has_log:
        # Killed while it became a manager: until there is a log, the unlock key itself seals the private key.
        raise ConfigurationError(WRONG_KEY) if unlock_key is not None else gone(raft, _OR_LOCKED)
    return None


def remove_log(raft: Path) -> None:
    """Remove the log of a node that is no manager any more: its keys first, which make the rest unreadable.

    Raises ConfigurationError in one line where the disk does not let it.
    """
    if not raft.exists():
        return
    try:
        (raft / KEY_FILE).unlink(missing_ok=True)
        sync_folder(raft)
        shutil.rmtree(raft)
        sync_folder(raft.parent)
    except OSError as error:
        raise ConfigurationError(
            f"can't remove the log of a manager that this node was from {str(raft)!r}: {error.strerror or error}"
        ) from None
