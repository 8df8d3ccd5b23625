"""The plugin of docs/plugins.md, as an author has it: copied, tested, installed with pip, used by a real swarmd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmctl, swarmd, wait_until
from swarmcore.testing.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "rack"


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLE, tmp_path / "rack", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def installed(copy: Path, tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with the package and its metadata."""
    target = tmp_path / "site"
    offline = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index")
    run(sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(target), ".", cwd=copy)
    return target


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    blocks = re.findall(r"```\w+\n(.*?)```", page, re.DOTALL)

    for file in ("acme_rack/__init__.py", "pyproject.toml", "tests/test_rack.py"):
        assert (EXAMPLE / file).read_text() in blocks, f"docs/plugins.md has another {file}"


def test_its_own_tests_pass_where_an_author_runs_them(copy: Path) -> None:
    output = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=copy, PYTHONPATH=str(copy))

    assert "passed" in output


def test_a_swarm_places_a_service_only_in_its_rack(
    installed: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    folder = tmp_path_factory.mktemp("n")
    address = f"127.0.0.1:{free_port()}"
    process = ("--executor", "process")
    manager = swarmd(folder / "m", "--hostname", "m", "--accept", "auto", "--listen-remote-api", address, *process)
    with manager as first, swarmd(folder / "w", "--hostname", "w", "--join-addr", address, *process):
        ctl = first.swarmctl
        ctl("node", "update", "w", "--label", "rack=r7")
        try:
            assert re.search(r"^rack +ok +0\.1\.0 +filter/rack +500 ", ctl("plugins"), re.MULTILINE)

            create(ctl, "near", "--label", "rack=r7", "--replicas", "4")
            create(ctl, "free", "--replicas", "2")
            create(ctl, "far", "--label", "rack=r9")

            wait_until(lambda: nodes_of(ctl, "near", ["w"] * 4))
            wait_until(lambda: nodes_of(ctl, "free", ["m", "w"]))
            wait_until(lambda: says(ctl, "far", "no suitable node (wrong rack on 2 nodes)"))

            ctl("node", "update", "m", "--label", "rack=r9")
            wait_until(lambda: nodes_of(ctl, "far", ["m"]))
        finally:
            ctl("service", "remove", "near", "free", "far")
            wait_until(lambda: no_tasks(ctl))


def create(ctl: Swarmctl, name: str, *flags: str) -> None:
    ctl("service", "create", "--name", name, *flags, "--runtime", "process", "--command", "sleep", "--args", "1000")


def nodes_of(ctl: Swarmctl, service: str, nodes: list[str]) -> None:
    tasks = ctl.table("service", "inspect", service)
    assert sorted(row["Node"] for row in tasks if row["Last State"].startswith("RUNNING")) == nodes


def says(ctl: Swarmctl, service: str, words: str) -> None:
    assert words in ctl("service", "inspect", service)


def no_tasks(ctl: Swarmctl) -> None:
    assert ctl.table("task", "ls") == []
