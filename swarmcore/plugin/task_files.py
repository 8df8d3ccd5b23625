"""Secrets and configs as files: written to memory, never to a disk, and mounted read-only one by one."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import Driver, FileTarget
from swarmcore.errors import ConfigurationError
from swarmcore.plugin.executor import Dependencies, TaskRejectedError, TemporaryError
from swarmcore.plugin.task_templates import expand_payload
from swarmcore.plugin.templates import TemplateError

SECRETS_FOLDER = "/run/secrets"
DEFAULT_MODE = 0o444
MAX_MODE = 0o7777
TEMPLATING = "golang"
NODE_UNKNOWN = "waits for what a manager says of this node, which the task's templates name"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file that a task gets."""

    target: str
    data: bytes
    uid: int
    gid: int
    mode: int


def task_files(task: Task, dependencies: Dependencies, node: Node | None = None) -> list[File]:
    """What the container spec references. Raises TaskRejectedError for what is missing or would leave its folder.

    `node` is this one as the managers see it, for payloads that are templates; None: not known yet.
    """
    spec = task.spec.container
    payloads = _Payloads(task, dependencies, node)
    files = []
    for secret_ref in spec.secrets:
        secret = dependencies.secrets.get(secret_ref.secret_id)
        if secret is None:
            raise TaskRejectedError(f"container.secrets: {secret_ref.secret_name!r} did not reach this node")
        data = payloads.expand(f"secret {secret_ref.secret_name!r}", secret.spec.data, secret.spec.templating)
        files.append(_file("secrets", secret_ref.file, secret_ref.secret_name, SECRETS_FOLDER, data))
    for config_ref in spec.configs:
        if config_ref.WhichOneof("target") == "runtime":
            continue
        config = dependencies.configs.get(config_ref.config_id)
        if config is None:
            raise TaskRejectedError(f"container.configs: {config_ref.config_name!r} did not reach this node")
        data = payloads.expand(f"config {config_ref.config_name!r}", config.spec.data, config.spec.templating)
        files.append(_file("configs", config_ref.file, config_ref.config_name, "/", data))
    return files


@dataclass(frozen=True, slots=True)
class _Payloads:
    """Secrets and configs of a task, some of which are templates that may name the others."""

    task: Task
    dependencies: Dependencies
    node: Node | None

    def expand(self, what: str, data: bytes, templating: Driver) -> bytes:
        if not templating.name:
            return data
        if templating.name != TEMPLATING:
            raise TaskRejectedError(f"{what}: unrecognized template type {templating.name!r}")
        if self.node is None:
            raise TemporaryError(NODE_UNKNOWN)
        spec, known = self.task.spec.container, self.dependencies
        secrets = {
            ref.file.name or ref.secret_name: known.secrets[ref.secret_id].spec.data
            for ref in spec.secrets
            if ref.secret_id in known.secrets
        }
        configs = {
            ref.file.name or ref.config_name: known.configs[ref.config_id].spec.data
            for ref in spec.configs
            if ref.config_id in known.configs
        }
        try:
            return expand_payload(data, self.task, self.node, secrets=secrets, configs=configs)
        except TemplateError as error:
            raise TaskRejectedError(f"{what}: {error}") from error


def _file(field: str, target: FileTarget, name: str, folder: str, data: bytes) -> File:
    """A target is below `folder`, also one that begins with `/`: elsewhere a secret could take any file's place."""
    path = PurePosixPath(folder) / (target.name or name)
    what = f"container.{field}.file: target {target.name!r}"
    if ".." in path.parts or "\0" in str(path) or not PurePosixPath(target.name or name).name:
        raise TaskRejectedError(f"{what} leaves its folder; use the path of a file without '..'")
    if PurePosixPath(folder) not in path.parents:
        raise TaskRejectedError(f"{what} leaves its folder; use a path below {folder}")
    if target.mode > MAX_MODE:
        raise TaskRejectedError(f"{what}: mode {target.mode:o} has more than permissions; use 444")
    return File(
        target=str(path),
        data=data,
        uid=_id(target.uid, f"{what}: uid"),
        gid=_id(target.gid, f"{what}: gid"),
        mode=target.mode or DEFAULT_MODE,
    )


def _id(text: str, what: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or int(text) > 2**32 - 2:
        raise TaskRejectedError(f"{what} {text[:100]!r} must be a number")
    return int(text)


class MemoryFolder:
    """A tmpfs of the executor's own; each task has a folder in it, which survives the agent as the tasks do."""

    def __init__(self, path: Path, *, is_shared: bool = False) -> None:
        """`is_shared`: `path` is to be a folder on a tmpfs that others use too, for who may not mount one."""
        self.path = path
        self._is_shared = is_shared
        self._lock = threading.Lock()
        """Mounting and unmounting, from several of the engine's threads."""

    def write(self, task: Task, dependencies: Dependencies, node: Node | None = None) -> list[tuple[Path, File]]:
        """Write the files of a task; returns where each one is, to be mounted read-only into its container."""
        files = task_files(task, dependencies, node)
        if not files:
            return []
        folder = self.path / task.id
        with self._lock:
            self._require_memory()
            folder.mkdir(mode=0o700, exist_ok=True)
        try:
            return self._written(folder, files)
        except OSError as error:
            # There may be room again, once other tasks have ended.
            raise TemporaryError(f"the files of secrets and configs: {error.strerror or error}") from error

    def _written(self, folder: Path, files: list[File]) -> list[tuple[Path, File]]:
        written = []
        for number, file in enumerate(files):
            path = folder / str(number)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
            try:
                with os.fdopen(descriptor, "wb", closefd=False) as out:
                    out.write(file.data)
                if os.geteuid() == 0:
                    os.fchown(descriptor, file.uid, file.gid)
                os.fchmod(descriptor, file.mode)
            finally:
                os.close(descriptor)
            written.append((path, file))
        return written

    def remove(self, task_id: str) -> None:
        """Forget the files of a task; the last one takes the tmpfs with it."""
        shutil.rmtree(self.path / task_id, ignore_errors=True)
        with self._lock:
            if self._is_shared:
                with contextlib.suppress(OSError):
                    self.path.rmdir()
                return
            if not _is_tmpfs(self.path) or any(self.path.iterdir()):
                return
            # A container that is just going may hold a mount below it: then the next removal tries again.
            subprocess.run(["umount", str(self.path)], check=False, capture_output=True, timeout=10)

    def _require_memory(self) -> None:
        if self._is_shared:
            self._require_shared()
            return
        if _is_tmpfs(self.path):
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "mode=0700,nosuid,nodev,noexec", "swarmcore-secrets", str(self.path)],
                check=True,
                capture_output=True,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError) as error:
            stderr = getattr(error, "stderr", None) or b""
            said = getattr(error, "strerror", None) or stderr.decode(errors="replace")
            raise ConfigurationError(
                f"secrets need a tmpfs at {str(self.path)!r} and it can't be mounted ({(said or str(error)).strip()}); "
                "run swarmd as root"
            ) from error

    def _require_shared(self) -> None:
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            found = os.lstat(self.path)
        except OSError as error:
            raise ConfigurationError(f"secrets need a folder at {str(self.path)!r}: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigurationError(f"secrets need a folder of our own at {str(self.path)!r}: remove what is there")
        if not _is_tmpfs_device(found.st_dev):
            raise ConfigurationError(f"secrets need memory, and {str(self.path)!r} is not on a tmpfs")


def _is_tmpfs(path: Path) -> bool:
    """Whether a tmpfs is mounted at `path`. Asked by device: the kernel writes paths without links, and escaped."""
    real = os.path.realpath(path)
    return os.path.ismount(real) and _is_tmpfs_device(os.stat(real).st_dev)


def _is_tmpfs_device(device: int) -> bool:
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as mounts:
        return any(
            line.split()[2] == number and line.partition(" - ")[2].partition(" ")[0] == "tmpfs" for line in mounts
        )
