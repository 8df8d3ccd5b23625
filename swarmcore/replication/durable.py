"""Files that are there, whole, after a power cut: written beside, synced, renamed, and the folder synced too."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY_SUFFIX = ".new"


def sync_folder(folder: Path) -> None:
    """Make names that were added to or removed from `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder`, mode 0700, and the folders above it, where they are missing; their names are durable then."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, or raise what stopped it (then part of `data` may be in the file)."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whose content is durable when this returns; its name is once the folder was synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        # Also of a file that a crash left behind, and whatever the umask.
        os.fchmod(descriptor, mode)
        write_all(descriptor, data)
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    os.close(descriptor)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path`: after a crash the old content is there or the new, never a mixture."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    write_file(temporary, data, mode)
    temporary.rename(path)
    sync_folder(path.parent)
