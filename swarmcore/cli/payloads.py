"""What `secret create` and `config create` send: a file, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from swarmcore.cli.command_line import CliError

MAX_READ = 4 * 1024 * 1024


def read_payload(kind: str, file: str | None) -> bytes:
    """The whole of `file`, or of stdin where it is None or `-`. The manager checks what it holds."""
    if file not in (None, "-"):
        try:
            with Path(str(file)).open("rb") as stream:
                data = stream.read(MAX_READ + 1)
        except OSError as error:
            raise CliError(f"can't read {file!r}: {error.strerror}") from None
    else:
        if sys.stdin.isatty():
            print(f"Type the {kind}; end with Ctrl-D.", file=sys.stderr)
        data = sys.stdin.buffer.read(MAX_READ + 1)
        if not data:
            raise CliError(f"standard input was empty: pipe the {kind} in, or name a file with --file")
    if len(data) > MAX_READ:
        raise CliError(f"the {kind} is larger than 4 MiB: the swarm takes much smaller ones only")
    return data
