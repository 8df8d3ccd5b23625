"""The tests of `rootless/`, which are for a user who is not root, run by root as such a user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import require
from swarmcore.testing.podman_engines import missing_rootless_podman
from swarmcore.testing.rootless import room

TREE = Path(__file__).parents[3]
INSIDE = Path(__file__).parent / "rootless"
SECONDS = 400

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(SECONDS + 60),
    pytest.mark.skipif(os.geteuid() != 0, reason="this user runs the tests of rootless/ itself"),
]


@pytest.mark.parametrize("file", sorted(path.name for path in INSIDE.glob("test_*.py")))
def test_a_user_who_is_not_root_passes(file: str) -> None:
    require(missing_rootless_podman())
    # Whoever is in the room has nothing missing, so nothing may be skipped.
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "SWARMCORE_REQUIRE_ENGINES": "1"}
    with room() as place:
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={place.home}/pytest", f"--rootdir={TREE}"]
        command = [sys.executable, "-m", "pytest", *options, "-c", str(TREE / "pyproject.toml"), str(INSIDE / file)]
        done = subprocess.run(
            place.command(*command, environment=environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    assert done.returncode == 0, done.stdout[-20_000:]
    print(done.stdout.splitlines()[-1])
