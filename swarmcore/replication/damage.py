"""What is said of a file of the state directory that can't be trusted: which one, where, why, and what to do."""

from __future__ import annotations

from pathlib import Path

from swarmcore.errors import DamagedStateError


class DamagedFileError(DamagedStateError):
    """One file of a manager's state. It stays as it is: nobody repairs what may have been acknowledged."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        """`what` is wrong with the file at `path` from byte `offset` on."""
        self.path = path
        self.offset = offset
        self.what = what
        super().__init__(f"{str(path)!r} is damaged at byte {offset} ({what}): {what_to_do(path.parent.parent)}")


def damaged(path: Path, offset: int, what: str) -> DamagedFileError:
    """The error of a file that can't be trusted."""
    return DamagedFileError(path, offset, what)


def what_to_do(state_dir: Path) -> str:
    """How a manager whose state is gone or damaged comes back.

    A copy of the folder from an earlier day is no way: the manager would have forgotten what it promised the others.
    """
    return (
        f"where other managers are left, remove this one, move {str(state_dir)!r} away and join it again; "
        "where none is, move it away and start with --restore and a backup; "
        f"`swarmctl raft verify -d {state_dir}` lists all that is wrong"
    )
