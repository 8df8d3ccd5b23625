"""Where a secret on a command line is read from without being seen in the list of processes."""

from __future__ import annotations

import os
import sys

from swarmcore.errors import ConfigurationError

MAX_BYTES = 4096
STANDARD_INPUT = "-"


def read_secret(file: str, flag: str, what: str) -> str:
    """What stands in a file; one line from standard input for `-`, not shown where that is a terminal.

    Raises ConfigurationError in one line.
    """
    if file == STANDARD_INPUT:
        return _ask(what)
    try:
        with open(file, "rb") as opened:
            return opened.read(MAX_BYTES).decode(errors="replace")
    except OSError as error:
        raise ConfigurationError(f"can't read {flag} {file!r}: {error.strerror}") from None


def _ask(what: str) -> str:
    if sys.stdin is None:
        return ""
    if not sys.stdin.isatty():
        return os.read(sys.stdin.fileno(), MAX_BYTES).decode(errors="replace").partition("\n")[0]
    import getpass

    try:
        return getpass.getpass(f"Please enter {what}: ")
    except EOFError:
        return ""
