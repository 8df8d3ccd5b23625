"""Takes snapshots: the store, piece by piece, into a file, while everything else goes on."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from swarmcore.errors import AbortedError
from swarmcore.raft.types import SnapshotMeta
from swarmcore.replication.disk import Disk
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import DiskFailedError
from swarmcore.replication.snapshot_file import SnapshotWriter, received_path, remove_received
from swarmcore.replication.state_folder import description

log = logging.getLogger("swarmcore.replication")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def write_snapshot(
    folder: Path, keys: KeyRing, disk: Disk, snapshot: SnapshotMeta, pieces: Iterator[bytes]
) -> int | None:
    """Write one snapshot; the number of its key once it is durable, None when the disk has no room for it.

    A piece is encoded on the loop (about 1 ms) and sealed and written on `disk`, which is not the log's thread. Raises
    DiskFailedError when the disk can't say whether it is durable.
    """
    with _disk_errors(folder):
        writer = await disk.submit(partial(SnapshotWriter, folder, keys, snapshot.index, description(snapshot)))
        try:
            for piece in pieces:
                await disk.submit(partial(writer.add, piece))
            await disk.submit(writer.finish)
        except BaseException:
            # Not awaited: this may be a cancellation, and the thread does it after what it is at.
            disk.submit(writer.abandon)
            raise
        return writer.key
    return None


async def receive_snapshot(
    folder: Path,
    keys: KeyRing,
    disk: Disk,
    snapshot: SnapshotMeta,
    pieces: AsyncIterator[bytes],
    *,
    transfer: str,
    first: int,
) -> int | None:
    """As `write_snapshot`, for one that comes piece by piece from `first` on: what came stays when it breaks off.

    Raises AbortedError when another number of pieces is here than the sender was told.
    """
    with _disk_errors(folder):
        path = received_path(folder, snapshot.index, transfer)
        # Of one transfer at a time something is kept, so that what is never finished does not add up.
        await disk.submit(partial(remove_received, folder, besides=path if first else None))
        open_writer = partial(SnapshotWriter, folder, keys, snapshot.index, description(snapshot), transfer=transfer)
        writer = await disk.submit(open_writer)
        try:
            if writer.pieces != first:
                raise AbortedError(f"{writer.pieces} pieces of the snapshot are here, not {first}: send it again")
            async for piece in pieces:
                await disk.submit(partial(writer.add, piece))
            await disk.submit(writer.finish)
        except OSError:
            # What a failed sync was for looks as if it were there.
            disk.submit(writer.abandon)
            raise
        except BaseException:
            disk.submit(writer.pause)
            raise
        return writer.key
    return None


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A disk without room is said and passed over; one that fails ends the process."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise DiskFailedError(f"can't write a snapshot into {str(folder)!r}: {error.strerror}") from error
        log.warning("no room for a snapshot in %r: the log grows until there is some", str(folder))
