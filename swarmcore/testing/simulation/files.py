"""A disk that forgets: what was written is there for the process, and after a power cut only what was synced.

The real file code runs on it (`log_file`, `snapshot_file`, `durable`, `keys`, `state_folder`): it is given a
`SimulatedPath` where it expects a `Path`, and `machine.py` puts `SimulatedOs` in the place of its `os`.

What a power cut leaves: of a file what was synced, and of what follows nothing, a part, or all of it with sectors that
read as zeros; of the names in a folder all that were synced and a beginning of the changes since, as a journal does it.
After a failed fsync the bytes are still there to be read, and no later fsync makes them durable.
"""

from __future__ import annotations

import errno
import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

SECTOR_BYTES = 512
_FIRST_DESCRIPTOR = 1 << 20


class PowerCut(BaseException):
    """The machine went dark in the middle of a call: no handler of the process runs any more."""


class File:
    """The content of one file: what the process sees, and how much of it is durable."""

    __slots__ = ("data", "is_poisoned", "synced", "undone")

    def __init__(self, data: bytes = b"", synced: int = 0) -> None:
        self.data = bytearray(data)
        self.synced = synced
        """So many bytes survive a power cut."""
        self.undone = b""
        """Durable bytes behind `synced` that were cut off, with no sync since."""
        self.is_poisoned = False
        """A sync failed: what is not durable now never will be."""

    def append(self, data: bytes) -> None:
        self.undone = b""
        self.data += data

    def truncate(self, size: int) -> None:
        if size < self.synced:
            self.undone = bytes(self.data[size : self.synced])
            self.synced = size
        del self.data[size:]
        if size == self.synced:
            self.is_poisoned = False

    def sync(self) -> None:
        if not self.is_poisoned:
            self.synced, self.undone = len(self.data), b""

    def after_power_cut(self, chance: Random) -> File:
        durable = bytes(self.data[: self.synced])
        rest = bytearray(self.data[self.synced :])
        if self.undone and chance.random() < 0.5:
            return File(durable + self.undone, self.synced + len(self.undone))
        match chance.randrange(4):
            case 0:
                rest.clear()
            case 1:
                del rest[chance.randrange(len(rest) + 1) :]
            case 2 if rest:
                # The file grew, and some of its sectors were never written.
                for at in range(self.synced - self.synced % SECTOR_BYTES, len(self.data), SECTOR_BYTES):
                    if chance.random() < 0.5:
                        first = max(at - self.synced, 0)
                        last = min(at + SECTOR_BYTES - self.synced, len(rest))
                        rest[first:last] = bytes(last - first)
            case 3 if self.is_poisoned:
                rest.clear()
        data = durable + rest
        return File(data, len(data))


Change = Callable[[dict[str, File]], None]


@dataclass(slots=True)
class _Open:
    files: Files
    path: str
    file: File | None
    """None for a folder."""


class Files:
    """The disk of one machine."""

    def __init__(self, chance: Random, counts: Counter[str] | None = None, capacity: int = 1 << 30) -> None:
        self.chance = chance
        self.counts = Counter[str]() if counts is None else counts
        """What really happened, for the coverage of a run."""
        self.capacity = capacity
        self.names: dict[str, File] = {}
        self.folders: set[str] = {"/"}
        self._durable_names: dict[str, File] = {}
        self._changes: list[tuple[str, Change]] = []
        """Changes of names since the last sync of their folder, in order."""
        self.is_failing = False
        """Every sync fails."""
        self.fuse = 0
        """The power is cut at this one of the next changes; 0 is never."""
        self.dies_at_sync = False
        """The power is cut when the next sync begins that would make something durable."""
        self.image: Files | None = None
        """What was left when the fuse blew."""

    @property
    def used(self) -> int:
        return sum(len(file.data) for file in self.names.values())

    def path(self, name: str) -> SimulatedPath:
        return SimulatedPath(self, name)

    def touch(self) -> None:
        """Called before each change."""
        if self.fuse and self.image is None:
            self.fuse -= 1
            if not self.fuse:
                self.image = self.after_power_cut()
                raise PowerCut

    def change(self, folder: str, change: Change) -> None:
        self.touch()
        change(self.names)
        self._changes.append((folder, change))

    def sync_folder(self, folder: str) -> None:
        self.touch()
        if self.is_failing:
            self.counts["failed sync of a folder"] += 1
            raise OSError(errno.EIO, "Input/output error")
        # A journal keeps the order over folders: whatever came before is durable too.
        while any(at == folder for at, _ in self._changes):
            self._changes.pop(0)[1](self._durable_names)

    def sync(self, file: File) -> None:
        self.touch()
        if self.dies_at_sync and self.image is None and len(file.data) > file.synced:
            self.image = self.after_power_cut()
            raise PowerCut
        if self.is_failing:
            file.is_poisoned = True
            self.counts["failed sync"] += 1
            raise OSError(errno.EIO, "Input/output error")
        file.sync()

    def write(self, file: File, data: bytes) -> int:
        self.touch()
        if self.fuse == 1 and len(data) > 1:
            # The next change is the cut: let it fall into the middle of this write.
            data = data[: self.chance.randrange(1, len(data))]
            self.counts["torn write"] += 1
        room = self.capacity - self.used
        if room < len(data):
            self.counts["full disk"] += 1
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = bytes(data[:room])
        file.append(written)
        return len(written)

    def after_power_cut(self) -> Files:
        """What the machine finds when it is switched on again."""
        left = Files(self.chance, self.counts)
        names = dict(self._durable_names)
        kept = self.chance.randrange(len(self._changes) + 1)
        for _, change in self._changes[:kept]:
            change(names)
        left.names = {name: file.after_power_cut(self.chance) for name, file in names.items()}
        self.counts["names lost with the power"] += kept < len(self._changes)
        self.counts["bytes lost with the power"] += any(
            left.names[name].data != file.data for name, file in names.items()
        )
        return self._settled(left)

    def after_kill(self) -> Files:
        """What a new process finds when only the old one ended: everything, and no more of it durable than before."""
        left = Files(self.chance, self.counts)
        copies: dict[int, File] = {}

        def copy(file: File) -> File:
            if id(file) not in copies:
                new = copies[id(file)] = File(bytes(file.data), file.synced)
                new.undone, new.is_poisoned = file.undone, file.is_poisoned
            return copies[id(file)]

        left.names = {name: copy(file) for name, file in self.names.items()}
        left.folders = set(self.folders)
        # Names that are not durable yet may still be lost: as one change, the last.
        left._durable_names = {name: copy(file) for name, file in self._durable_names.items()}
        if self._changes:
            final = dict(left.names)

            def become(names: dict[str, File]) -> None:
                names.clear()
                names.update(final)

            left._changes = [(self._changes[-1][0], become)]
        return left

    def _settled(self, left: Files) -> Files:
        left._durable_names = dict(left.names)
        left.folders = set(self.folders)
        return left


class SimulatedPath:
    """As much of a `Path` as the file code asks for."""

    __slots__ = ("_name", "files")

    def __init__(self, files: Files, name: str) -> None:
        self.files = files
        self._name = name

    def __truediv__(self, name: str) -> SimulatedPath:
        return SimulatedPath(self.files, f"{self._name}/{name}")

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"SimulatedPath({self._name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimulatedPath) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __lt__(self, other: SimulatedPath) -> bool:
        return self._name < other._name

    @property
    def name(self) -> str:
        return self._name.rpartition("/")[2]

    @property
    def parent(self) -> SimulatedPath:
        return SimulatedPath(self.files, self._name.rpartition("/")[0] or "/")

    def with_name(self, name: str) -> SimulatedPath:
        return self.parent / name

    def exists(self) -> bool:
        return self._name in self.files.names or self._name in self.files.folders

    def stat(self) -> os.stat_result:
        return os.stat_result((0, 0, 0, 0, 0, 0, len(self._file().data), 0, 0, 0))

    def read_bytes(self) -> bytes:
        return bytes(self._file().data)

    def glob(self, pattern: str) -> Iterator[SimulatedPath]:
        names = [name for name in self.files.names if name.rpartition("/")[0] == self._name]
        for name in names:
            if fnmatch.fnmatchcase(name.rpartition("/")[2], pattern):
                yield SimulatedPath(self.files, name)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        self.files.folders.add(self._name)

    def unlink(self, missing_ok: bool = False) -> None:
        if self._name not in self.files.names:
            if missing_ok:
                return
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", self._name)

        def change(names: dict[str, File]) -> None:
            names.pop(self._name, None)

        self.files.change(str(self.parent), change)

    def rename(self, target: SimulatedPath) -> SimulatedPath:
        file = self._file()

        def change(names: dict[str, File]) -> None:
            names.pop(self._name, None)
            names[target._name] = file

        self.files.change(str(self.parent), change)
        return target

    def _file(self) -> File:
        file = self.files.names.get(self._name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", self._name)
        return file


@dataclass(frozen=True, slots=True)
class _Usage:
    f_bavail: int
    f_frsize: int = 1


class Randomness(Protocol):
    def randbytes(self, n: int) -> bytes: ...


class SimulatedOs:
    """As much of the module `os` as the file code asks for, on simulated disks."""

    O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC = os.O_RDONLY, os.O_WRONLY, os.O_CREAT, os.O_TRUNC
    O_APPEND, O_CLOEXEC, O_DIRECTORY = os.O_APPEND, os.O_CLOEXEC, os.O_DIRECTORY

    def __init__(self, chance: Randomness) -> None:
        self._chance = chance
        self._open: dict[int, _Open] = {}
        self._next = _FIRST_DESCRIPTOR

    def urandom(self, size: int) -> bytes:
        return self._chance.randbytes(size)

    def open(self, path: SimulatedPath, flags: int, mode: int = 0o777) -> int:
        files, name = path.files, str(path)
        file: File | None = None
        if not flags & os.O_DIRECTORY:
            file = files.names.get(name)
            if file is None:
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
                new = file = File()

                def change(names: dict[str, File]) -> None:
                    names[name] = new

                files.change(str(path.parent), change)
            elif flags & os.O_TRUNC:
                file.truncate(0)
        self._next += 1
        self._open[self._next] = _Open(files, name, file)
        return self._next

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        opened = self._open[descriptor]
        assert opened.file is not None
        return opened.files.write(opened.file, bytes(data))

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        opened = self._open[descriptor]
        assert opened.file is not None
        return bytes(opened.file.data[offset : offset + length])

    def fstat(self, descriptor: int) -> os.stat_result:
        opened = self._open[descriptor]
        assert opened.file is not None
        return os.stat_result((0, 0, 0, 0, 0, 0, len(opened.file.data), 0, 0, 0))

    def fchmod(self, descriptor: int, mode: int) -> None:
        """Nobody else is there to read it."""

    def ftruncate(self, descriptor: int, size: int) -> None:
        opened = self._open[descriptor]
        assert opened.file is not None
        opened.files.touch()
        opened.file.truncate(size)

    def fsync(self, descriptor: int) -> None:
        opened = self._open[descriptor]
        if opened.file is None:
            opened.files.sync_folder(opened.path)
        else:
            opened.files.sync(opened.file)

    fdatasync = fsync

    def statvfs(self, path: SimulatedPath) -> _Usage:
        return _Usage(max(0, path.files.capacity - path.files.used))
