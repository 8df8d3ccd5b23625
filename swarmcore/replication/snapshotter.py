"""Takes snapshots: the store, piece by piece, into a file, while everything else goes on."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

from swarmcore.raft.types import SnapshotMeta
from swarmcore.replication.disk import Disk
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import DiskFailedError
from swarmcore.replication.snapshot_file import SnapshotWriter
from swarmcore.replication.state_folder import description

log = logging.getLogger("swarmcore.replication")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def write_snapshot(
    folder: Path, keys: KeyRing, disk: Disk, snapshot: SnapshotMeta, pieces: Iterator[bytes] | AsyncIterator[bytes]
) -> int | None:
    """Write one snapshot; the number of its key once it is durable, None when the disk has no room for it.

    A piece is encoded on the loop (about 1 ms) and sealed and written on `disk`, which is not the log's thread. Raises
    DiskFailedError when the disk can't say whether it is durable.
    """
    try:
        writer = await disk.submit(partial(SnapshotWriter, folder, keys, snapshot.index, description(snapshot)))
        try:
            if isinstance(pieces, AsyncIterator):
                async for piece in pieces:
                    await disk.submit(partial(writer.add, piece))
            else:
                for piece in pieces:
                    await disk.submit(partial(writer.add, piece))
            await disk.submit(writer.finish)
        except BaseException:
            # Not awaited: this may be a cancellation, and the thread does it after what it is at.
            disk.submit(writer.abandon)
            raise
    except OSError as error:
        if error.errno not in _FULL:
            raise DiskFailedError(f"can't write a snapshot into {str(folder)!r}: {error.strerror}") from error
        log.warning("no room for a snapshot in %r: the log grows until there is some", str(folder))
        return None
    return writer.key
