"""The demo as it is run: what it shows, and that nothing is left of it however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from swarmcore.testing.engines import missing_engine

pytestmark = pytest.mark.timeout(120)


@contextmanager
def demo(engine: str = "process", **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "swarmcore.testing.demo", "--engine", engine],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "120", **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if words in line:
            return read
    raise AssertionError(f"the demo ended before {words!r}: {read}")


def folder_in(output: str) -> Path:
    found = re.search(r"^\$ cd (\S+swarmcore-demo-\S+)$", output, re.MULTILINE)
    assert found, output
    return Path(found[1])


def processes_of(folder: Path) -> list[int]:
    """Those that were started in the folder or below it, its own swarmd and the tasks alike."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(str(folder)):
                found.append(int(entry.name))
    return found


def assert_nothing_is_left(output: str) -> None:
    folder = folder_in(output)
    assert not folder.exists()
    assert processes_of(folder) == []


def test_the_demo_shows_a_service_created_scaled_updated_in_parts_and_moved() -> None:
    with demo() as process:
        output, _ = process.communicate()

    titles = re.findall(r"^\d  (.+?) ─+$", output, re.MULTILINE)
    assert process.returncode == 0, output
    assert titles == [
        "Three nodes form a swarm",
        "A service is made of tasks",
        "Scale it to 6",
        "Update it in parts: 2 tasks at a time, 2s between",
        "Drain worker-2, as before a repair",
        "Remove it",
    ]
    assert re.search(r"manager-1  ACCEPTED    READY   ACTIVE        REACHABLE \*", output)
    assert "$ swarmctl service update web --args 2000 --update-parallelism 2 --update-delay 2s" in output
    assert_an_update_in_parts(output, "sleep 1000", "sleep 2000")
    assert re.search(r"worker-2   ACCEPTED    READY   DRAIN", output)
    assert "Done in" in output
    assert_nothing_is_left(output)


def assert_an_update_in_parts(output: str, old: str, new: str) -> None:
    """Of the tables after the update's command line the first has both versions, and the last none on worker-2."""
    pages = output.partition("--update-delay 2s")[2].split("$ swarmctl service inspect web")[1:]
    first = pages[0].partition("→")[0]
    # Two and four, unless the machine is so slow that the next part has begun.
    assert 2 <= first.count(f"  {new} ") < 6 and first.count(f"  {old} ")
    assert pages[1].partition("$ ")[0].count(f"  {new} ") == 6
    last = [line for line in pages[-1].splitlines() if "  web  " in line]
    assert len(last) == 6 and not any(line.endswith("worker-2") for line in last)


def test_ctrl_c_ends_all_that_the_demo_started() -> None:
    with demo() as process:
        output = read_until(process, "3  Scale it")
        assert processes_of(folder_in(output))

        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate()

    assert process.returncode == 130
    assert rest.endswith("Interrupted; everything was cleaned up.\n")
    assert_nothing_is_left(output)


def test_a_manager_that_dies_is_told_in_one_line_and_its_tasks_do_not_stay() -> None:
    with demo() as process:
        output = read_until(process, "4  Update it")
        folder = folder_in(output)
        for pid in processes_of(folder):
            if b"manager-1" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
        rest, _ = process.communicate()

    assert process.returncode == 1
    assert rest.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in rest
    assert_nothing_is_left(output)


@pytest.mark.engine
def test_the_demo_runs_containers_on_a_real_engine() -> None:
    from conftest import require

    require(missing_engine())
    with demo("docker") as process:
        output, _ = process.communicate()

    address = re.search(r"docker -H unix://(/\S+)/docker.sock ps", output)
    assert process.returncode == 0, output
    assert address and not Path(address[1]).exists()
    assert_an_update_in_parts(output, "busybox:1.36", "busybox:1.37")
    assert re.search(r"^web\.\d\.\w{25}\s+busybox:1\.37\s+Up", output, re.MULTILINE)
    assert_nothing_is_left(output)


def test_without_an_engine_the_demo_says_what_to_install(tmp_path: Path) -> None:
    with demo("docker", PATH=str(tmp_path)) as process:
        output, _ = process.communicate()

    assert process.returncode == 1
    assert len(output.splitlines()) == 1
    assert "install" in output
