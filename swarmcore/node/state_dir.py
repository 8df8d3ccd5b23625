"""The folder that a node keeps its state in: private, writable, and one node's alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from swarmcore.errors import ConfigurationError
from swarmcore.replication.durable import make_folder


class StateDir:
    """A locked state directory; close it to let another process have it."""

    def __init__(self, path: Path) -> None:
        """Make and lock it. Raises ConfigurationError in one line: no rights, no folder, or in use."""
        self.path = path
        try:
            make_folder(path)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"can't write the state directory {str(path)!r}: {error.strerror}; name another with --state-dir"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigurationError(
                f"another swarmd uses the state directory {str(path)!r}: stop it, or name another with --state-dir"
            ) from None

    def close(self) -> None:
        os.close(self._lock)
