"""The room in which tests of root run what belongs to a user who is not root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import require
from swarmcore.testing.rootless import NUMBER, USER, missing_room, room, veils

pytestmark = pytest.mark.engine


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_is_in_it_is_another_user_with_python_and_the_tests_and_the_machine_knows_nothing_of_it() -> None:
    require(missing_room())
    before = [Path(path).read_bytes() for path in ("/etc/passwd", "/etc/group")]
    script = (
        "import os, pathlib, swarmcore.testing; tun = open('/dev/net/tun', 'rb+', buffering=0); "
        "print(os.getuid(), os.getgid(), os.getgroups(), pathlib.Path.home(), os.getcwd(), os.environ['WORD'])"
    )
    with room() as place:
        said = run(place.command(sys.executable, "-c", script, environment={"WORD": "two words"}))
        home = place.home
        inside = run(place.command("id", "-un"))

    assert said == f"{NUMBER} {NUMBER} [] {home} {home} two words\n"
    assert inside == f"{USER}\n"
    assert [Path(path).read_bytes() for path in ("/etc/passwd", "/etc/group")] == before
    assert not home.exists()


def test_nothing_that_was_started_in_it_outlives_it() -> None:
    require(missing_room())
    mark = f"left-behind-{os.getpid()}"
    with room() as place:
        said = run(place.command("sh", "-c", f"mkfifo f; setsid sh -c 'echo up >f; sleep 1000; : {mark}' & cat f"))

    assert said == "up\n"
    assert mark not in run(["ps", "-eo", "args"])


def test_what_lies_in_a_folder_that_others_may_not_enter_is_there_and_nothing_else_of_it(tmp_path: Path) -> None:
    require(missing_room())
    closed = tmp_path / "closed"
    wanted = closed / "way" / "wanted"
    wanted.mkdir(parents=True)
    (wanted / "file").write_text("for all\n")
    (closed / "private").write_text("for nobody\n")
    closed.chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        # pytest's own folders are root's alone as well.
        if folder.stat().st_mode & 0o001 == 0:
            closed = folder
    with room() as place:
        said = run(place.command("find", str(closed), "-type", "f", wanted=(wanted,)))

    assert said == f"{wanted}/file\n"


def test_only_folders_on_the_way_that_are_closed_are_veiled(tmp_path: Path) -> None:
    open_folder, closed = tmp_path / "open", tmp_path / "closed"
    (closed / "a").mkdir(parents=True)
    open_folder.mkdir()
    closed.chmod(0o700)
    top = min((folder for folder in (closed, *closed.parents) if not folder.stat().st_mode & 0o001), key=str)

    assert veils([Path("/usr"), closed / "a", closed / "a"]) == [(str(top), str(closed / "a"))]
