"""Control groups, where this machine has them and lets us: one for each task, for its limits and to find all of it.

Both versions. They stand below the root of the hierarchy, as those of container engines do: `/swarmcore/<task>`. Where
none can be had, limits of memory become rlimits, and those that have no rlimit are refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PARENT: Final = "swarmcore"
CONTROLLERS: Final = frozenset({"cpu", "memory", "pids"})
PERIOD_MICROSECONDS: Final = 100_000
LONG_PERIOD_MICROSECONDS: Final = 1_000_000
MIN_QUOTA_MICROSECONDS: Final = 1_000
"""The kernel's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a task may use; 0 is no limit."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0

    @property
    def controllers(self) -> frozenset[str]:
        wanted = (("cpu", self.nano_cpus), ("memory", self.memory_bytes), ("pids", self.pids))
        return frozenset(name for name, limit in wanted if limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """The hierarchies of this machine that we may make groups in."""

    places: Mapping[str, Path]
    """Where the groups of each controller stand; one place for all in version 2."""
    is_unified: bool = False
    """Version 2."""

    @classmethod
    def find(cls, mounts: str = "/proc/self/mountinfo") -> Cgroups:
        """What can be used here; no places where there is nothing. Makes our parent group."""
        if os.geteuid() != 0:
            return cls(places={})
        found: dict[str, Path] = {}
        unified: Path | None = None
        for kind, options, place in _hierarchies(mounts):
            if kind == "cgroup2":
                unified = unified or place
                continue
            for name in CONTROLLERS.intersection(options):
                found.setdefault(name, place)
        if found:
            return cls(places={name: place / PARENT for name, place in found.items() if _is_usable(place)})
        if unified is not None and (controllers := _enable(unified)):
            return cls(places={name: unified / PARENT for name in controllers}, is_unified=True)
        return cls(places={})

    def folders(self, task_id: str, controllers: Iterable[str] = CONTROLLERS) -> list[Path]:
        """The groups of a task, whether or not they are there."""
        wanted = self.places.keys() & set(controllers)
        return [place / task_id for place in sorted({self.places[name] for name in wanted})]

    def make(self, task_id: str, limits: Limits) -> list[Path]:
        """Make a task's groups with its limits; those that were there get them anew. Raises OSError.

        A group that keeps track of what belongs to the task is made where it has no limits too.
        """
        wanted = limits.controllers | {"pids"}
        folders = self.folders(task_id, wanted)
        for folder in folders:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, text in self._settings(limits):
            controller = name.partition(".")[0]
            path = self.places[controller] / task_id / name
            if controller == "memory" and not path.exists():
                # A kernel that does not count swap.
                continue
            path.write_text(text)
        return folders

    def _settings(self, limits: Limits) -> Iterator[tuple[str, str]]:
        """Files of a group and what they hold, in the order in which the kernel takes them."""
        known = limits.controllers & self.places.keys()
        if "cpu" in known:
            quota, period = cpu_quota(limits.nano_cpus)
            if self.is_unified:
                yield "cpu.max", f"{quota} {period}"
            else:
                yield "cpu.cfs_period_us", str(period)
                yield "cpu.cfs_quota_us", str(quota)
        if "memory" in known:
            memory = limits.memory_bytes
            # As much swap as memory, which is what container engines give.
            if self.is_unified:
                yield "memory.max", str(memory)
                yield "memory.swap.max", str(memory)
            else:
                yield "memory.limit_in_bytes", str(memory)
                yield "memory.memsw.limit_in_bytes", str(2 * memory)
        if "pids" in known:
            yield "pids.max", str(limits.pids)

    def pids(self, task_id: str) -> set[int]:
        """Every process in the task's groups, and in groups that it made below them."""
        found: set[int] = set()
        for folder in self.folders(task_id):
            for here, _, _ in os.walk(folder):
                with contextlib.suppress(OSError, ValueError):
                    found.update(map(int, (Path(here) / "cgroup.procs").read_text().split()))
        return found

    def was_out_of_memory(self, task_id: str) -> bool:
        """Whether the kernel killed anything in the task's group for want of memory."""
        place = self.places.get("memory")
        if place is None:
            return False
        name = "memory.events" if self.is_unified else "memory.oom_control"
        try:
            text = (place / task_id / name).read_text()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in text.splitlines())

    @contextlib.contextmanager
    def held(self) -> Iterator[int | None]:
        """Keep sweeps of other executors off groups in which nothing runs yet.

        Yields the descriptor that does so, None without groups. A process that inherits it holds them on after we died.
        """
        parents = sorted(set(self.places.values()))
        for parent in parents:
            # Empty parents are what tidy administrators remove.
            parent.mkdir(mode=0o755, exist_ok=True)
        if not parents:
            yield None
            return
        descriptor = _lock_file(parents[0])
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield descriptor
        finally:
            os.close(descriptor)

    def sweep(self, kept: Iterable[str]) -> None:
        """Remove groups in which nothing runs, except for those of the tasks `kept`: whoever made them was killed."""
        parents = sorted(set(self.places.values()))
        if not parents:
            return
        with contextlib.suppress(OSError):
            descriptor = _lock_file(parents[0])
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for parent in parents:
                    for name in {entry.name for entry in os.scandir(parent) if entry.is_dir()}.difference(kept):
                        # Refused where anything runs in it or below.
                        with contextlib.suppress(OSError):
                            os.rmdir(parent / name)
            finally:
                os.close(descriptor)

    def remove(self, task_id: str) -> None:
        """Remove what is left of a task's groups once nothing runs in them. Raises OSError where it stays."""
        for folder in self.folders(task_id):
            for here, _, _ in os.walk(folder, topdown=False):
                try:
                    os.rmdir(here)
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        raise


def cpu_quota(nano_cpus: int) -> tuple[int, int]:
    """Microseconds of CPU in a period of how many: a longer one where the kernel would take the share for too small."""
    for period in (PERIOD_MICROSECONDS, LONG_PERIOD_MICROSECONDS):
        quota = nano_cpus * period // 1_000_000_000
        if quota >= MIN_QUOTA_MICROSECONDS:
            return quota, period
    return MIN_QUOTA_MICROSECONDS, LONG_PERIOD_MICROSECONDS


def _lock_file(parent: Path) -> int:
    """A file that the kernel makes with each group. Not the folder: a launcher has it as a standard stream."""
    # Made only where no kernel did, below a plain folder.
    return os.open(parent / "cgroup.procs", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _hierarchies(mounts: str) -> Iterator[tuple[str, frozenset[str], Path]]:
    with contextlib.suppress(OSError), open(mounts) as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            if kind in ("cgroup", "cgroup2"):
                place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
                yield kind, frozenset(options.split(",")), Path(place)


def _is_usable(place: Path) -> bool:
    """Whether our parent group is there or can be made."""
    try:
        (place / PARENT).mkdir(mode=0o755, exist_ok=True)
    except OSError:
        return False
    return os.access(place / PARENT, os.W_OK)


def _enable(place: Path) -> frozenset[str]:
    """Pass on the controllers of version 2 to our groups; returns those that could be."""
    if not _is_usable(place):
        return frozenset()
    found = set()
    for name in CONTROLLERS:
        try:
            for group in (place, place / PARENT):
                (group / "cgroup.subtree_control").write_text(f"+{name}")
            found.add(name)
        except OSError:
            # Not compiled in, or not ours to give: processes in a group that is no root keep it.
            continue
    return frozenset(found)
