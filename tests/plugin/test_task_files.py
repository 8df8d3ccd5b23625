"""Where secrets and configs go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Secret, Task
from swarmcore.errors import ConfigurationError
from swarmcore.plugin import task_files as files
from swarmcore.plugin.executor import Dependencies, TaskRejectedError, TemporaryError
from swarmcore.plugin.task_files import MemoryFolder, task_files


def task_with_secret(target: str) -> Task:
    task = Task(id="t")
    reference = task.spec.container.secrets.add(secret_id="s", secret_name="password")  # noqa: S106
    reference.file.name = target
    return task


def dependencies() -> Dependencies:
    secret = Secret(id="s")
    secret.spec.data = b"hunter2"
    return Dependencies(secrets={"s": secret})


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("", "/run/secrets/password"),
        ("db/password", "/run/secrets/db/password"),
        ("/run/secrets/x", "/run/secrets/x"),
    ],
)
def test_a_secret_is_below_its_folder(target: str, path: str) -> None:
    (file,) = task_files(task_with_secret(target), dependencies())

    assert (file.target, file.data) == (path, b"hunter2")


@pytest.mark.parametrize("target", ["../x", "/etc/password", "/run/secrets", "/run/secrets/../x", "/run/secretsx"])
def test_a_target_that_leaves_its_folder_is_refused(target: str) -> None:
    with pytest.raises(TaskRejectedError, match="leaves its folder"):
        task_files(task_with_secret(target), dependencies())


def test_a_secret_that_did_not_come_is_named_and_not_shown() -> None:
    with pytest.raises(TaskRejectedError, match="'password' did not reach this node"):
        task_files(task_with_secret(""), Dependencies())


@pytest.mark.skipif(not files._is_tmpfs(Path("/dev/shm")), reason="/dev/shm is no tmpfs here")
def test_a_tmpfs_is_known_behind_a_link_too(tmp_path: Path) -> None:
    link = tmp_path / "with a blank"
    link.symlink_to("/dev/shm")

    assert files._is_tmpfs(link)
    assert not files._is_tmpfs(tmp_path)
    assert not files._is_tmpfs(tmp_path / "nothing")


@pytest.mark.skipif(not files._is_tmpfs(Path("/dev/shm")), reason="/dev/shm is no tmpfs here")
def test_who_may_not_mount_a_tmpfs_uses_a_folder_of_its_own_on_one(tmp_path: Path) -> None:
    folder = Path("/dev/shm") / f"swarmcore-test-{tmp_path.name}"
    memory = files.MemoryFolder(folder, is_shared=True)

    ((path, file),) = memory.write(task_with_secret(""), dependencies())
    found = path.read_bytes(), folder.stat().st_mode & 0o777
    memory.remove("t")

    assert (found, file.target) == ((b"hunter2", 0o700), "/run/secrets/password")
    assert not folder.exists()


@pytest.mark.skipif(not files._is_tmpfs(Path("/dev/shm")), reason="/dev/shm is no tmpfs here")
def test_a_folder_that_others_can_read_or_that_is_on_a_disk_gets_no_secret(tmp_path: Path) -> None:
    shared, link = Path("/dev/shm") / f"swarmcore-open-{tmp_path.name}", tmp_path / "link"
    shared.mkdir(mode=0o755)
    link.symlink_to(shared)
    try:
        for path, words in ((shared, "of our own"), (link, "of our own"), (tmp_path / "disk", "not on a tmpfs")):
            with pytest.raises(ConfigurationError, match=words):
                files.MemoryFolder(path, is_shared=True).write(task_with_secret(""), dependencies())
        assert list(shared.iterdir()) == []
    finally:
        shared.rmdir()


def test_a_mode_that_is_more_than_permissions_is_refused() -> None:
    task = task_with_secret("x")
    task.spec.container.secrets[0].file.mode = 0o4000 << 9

    with pytest.raises(TaskRejectedError, match="'x': mode 4000000 "):
        task_files(task, dependencies())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_memory_that_is_full_is_a_reason_to_wait(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", "tmpfs", str(tmp_path)], check=True)
    try:
        secret = Secret(id="s")
        secret.spec.data = b"x" * 100_000
        with pytest.raises(TemporaryError, match="No space left on device"):
            MemoryFolder(tmp_path).write(task_with_secret("x"), Dependencies(secrets={"s": secret}))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user sees less than root")
def test_why_there_is_no_memory_for_secrets_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"can't be mounted \(Not a directory\)"):
        MemoryFolder(tmp_path / "file" / "secrets").write(task_with_secret("x"), dependencies())


@pytest.mark.parametrize("owner", ["root", "-1", "²", "4294967295", "9" * 5000])
def test_an_owner_that_is_no_number_is_refused(owner: str) -> None:
    task = task_with_secret("x")
    task.spec.container.secrets[0].file.uid = owner

    with pytest.raises(TaskRejectedError, match=r"container\.secrets\.file: target 'x': uid .* must be a number"):
        task_files(task, dependencies())
