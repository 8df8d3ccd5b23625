"""Working folders of tasks.

One that runs as swarmd's own user has it in the task's folder. Another user could not reach it there by its name, since
a node's state is closed to everybody else: it is below `WORK_ROOT` then, and the task's folder has a link to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Final, Protocol

from swarmcore.plugin.executor import TaskRejectedError

WORK_ROOT: Final = Path("/var/lib/swarmcore/work")


class Owner(Protocol):
    """Who the process is."""

    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...


def make_work(folder: Path, task_id: str, owner: Owner | None) -> Path:
    """Make a task's working folder, or find it made; `folder` is the task's own. Raises OSError."""
    here = folder / "work"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owner is None or owner.uid == os.geteuid() or os.geteuid() != 0:
        here.mkdir(mode=0o755, exist_ok=True)
        return here
    for each in (WORK_ROOT.parent, WORK_ROOT):
        with contextlib.suppress(FileExistsError):
            each.mkdir(parents=True)
            # Whatever the umask: to be passed through, and not to be listed.
            each.chmod(0o711)
    work = WORK_ROOT / task_id
    # Nobody else may make anything beside it: what is there is ours.
    work.mkdir(mode=0o700, exist_ok=True)
    os.chown(work, owner.uid, owner.gid)
    with contextlib.suppress(FileExistsError):
        here.symlink_to(work)
    return work


def work_at(work: Path, place: str, owner: Owner | None) -> Path:
    """Where the process begins: `work`, a folder below it that is made, or an absolute path that has to be there."""
    if not place:
        return work
    try:
        return _work_at(work, place, owner)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TaskRejectedError(f"process.dir: {error.strerror}: {place[:200]!r}") from error


def _work_at(work: Path, place: str, owner: Owner | None) -> Path:
    found = work / place
    if place.startswith("/"):
        if not found.is_dir():
            reason = "Not a directory" if found.exists() else "No such file or directory"
            raise TaskRejectedError(f"process.dir: {reason}: {place!r}")
        return found
    if ".." in Path(place).parts:
        raise TaskRejectedError(
            f"process.dir: {place!r} leaves the task's own folder; use an absolute path, or no '..'"
        )
    below = work
    for name in Path(place).parts:
        below /= name
        below.mkdir(mode=0o755, exist_ok=True)
        if owner is not None and os.geteuid() == 0:
            os.chown(below, owner.uid, owner.gid)
    return below


def remove_folders(folder: Path, task_id: str) -> None:
    """Remove a task's folders, whatever of them there is."""
    shutil.rmtree(WORK_ROOT / task_id, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def left_of(folder: Path, task_id: str) -> Path | None:
    """A folder that could not be removed."""
    return next((each for each in (folder, WORK_ROOT / task_id) if each.exists()), None)
