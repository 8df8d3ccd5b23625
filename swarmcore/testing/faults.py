"""What tests of faults look at: how a program ended, and the processes and disks of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from swarmcore.testing.cluster import program

LOG_LINE = "time="


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, with a short path: that of a unix socket must fit in 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="swf-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def only_complaint(stderr: str) -> str:
    """The one line on stderr that is no log line. Fails on a traceback, on more lines, and on errors in the log."""
    log = [line for line in stderr.splitlines() if line.startswith(LOG_LINE)]
    rest = [line for line in stderr.splitlines() if not line.startswith(LOG_LINE)]
    assert "Traceback" not in stderr, stderr
    assert len(rest) == 1 and rest[0].startswith("Error: "), stderr
    assert not [line for line in log if "level=error" in line or "level=fatal" in line], stderr
    return rest[0]


def refused_start(*flags: str, code: int = 1, seconds: float = 20.0) -> str:
    """Start `swarmd`, which must end by itself with this exit code, and return its one line of complaint."""
    done = subprocess.run(
        [program("swarmd"), *flags], capture_output=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
    )
    stderr = done.stderr.decode(errors="replace")
    assert done.returncode == code, f"exit code {done.returncode}: {stderr}"
    assert not done.stdout, done.stdout
    return only_complaint(stderr)


def marked(number: int) -> str:
    """An argument for `sleep`, a day long, by which a process is known as one of this very run of tests."""
    return f"86400.{os.getpid()}{number:02}"


def processes(*words: str) -> dict[int, str]:
    """Command lines by process id of all processes that have one of `words` among their arguments."""
    wanted = frozenset(words)
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if not wanted.isdisjoint(arguments):
                    found[int(folder.name)] = " ".join(arguments)
    return found


def why_no_small_disk() -> str | None:
    """Why no tmpfs can be mounted here; None where one can."""
    if os.geteuid() != 0:
        return "a small disk needs a tmpfs, and mounting one needs root"
    with short_folder() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
        if tried.returncode:
            return f"can't mount a tmpfs here: {tried.stderr.decode().strip()}"
        subprocess.run(["umount", str(folder)], check=True)
    return None


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int, *, options: str = "") -> Iterator[None]:
    """A disk of that size at `folder`."""
    folder.mkdir()
    size = ",".join(filter(None, (f"size={megabytes}m", options)))
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def fill(path: Path) -> None:
    """Take all the room that is left on the disk of `path`."""
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


class FrozenDisk:
    """A real file system whose writes hang while it is frozen: no error, no end, as with a storage that went away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def frozen(self, seconds: float = 60.0) -> Iterator[None]:
        """Freeze it for the length of the block, and never longer than `seconds`: who waits for it can't be killed."""
        thaw = threading.Timer(seconds, self._thaw)
        thaw.start()
        subprocess.run(["fsfreeze", "-f", str(self.folder)], check=True)
        try:
            yield
        finally:
            self._thaw()
            thaw.cancel()
            thaw.join()

    def _thaw(self) -> None:
        subprocess.run(["fsfreeze", "-u", str(self.folder)], capture_output=True, check=False)


def why_no_frozen_disk(folder: Path) -> str | None:
    """Why no disk can be made, mounted and frozen here; None where one can."""
    if os.geteuid() != 0:
        return "a disk that can be frozen needs a mount, and that needs root"
    try:
        with freezable_disk(folder / "tried") as disk, disk.frozen():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"can't mount and freeze a disk here: {error}"


@contextlib.contextmanager
def freezable_disk(folder: Path) -> Iterator[FrozenDisk]:
    """An ext4 of its own, mounted at `folder`; gone afterwards."""
    folder.mkdir(parents=True)
    image = folder.with_suffix(".img")
    with open(image, "wb") as file:
        file.truncate(128 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield FrozenDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        image.unlink()
