"""Ctrl-C ends a command whenever it comes, without a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = "import os, signal, sys, time\nfrom swarmcore.cli import start\n"
SIGNAL = "os.kill(os.getpid(), signal.SIGINT)"
LOADS = f"def load():\n    {SIGNAL}\n    time.sleep(20)\n"
WAITS = f"def main():\n    {SIGNAL}\n    time.sleep(20)\n"
DROPS = f"class Dropping:\n    def __del__(self):\n        {SIGNAL}\ndef main():\n    Dropping()\n    time.sleep(20)\n"
ENDS = f"import atexit\natexit.register(lambda: ({SIGNAL}, time.sleep(20)))\ndef main():\n    pass\n"


def run(script: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    load = "" if "def load" in script else "load = lambda: main\n"
    begin = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" if ignored else ""
    return subprocess.run(
        [sys.executable, "-c", f"{begin}{BEGIN}{script}{load}start._run(load)"],
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )


@pytest.mark.parametrize(("script", "code"), [(LOADS, -2), (WAITS, 130), (DROPS, 130), (ENDS, -2)])
def test_it_ends_at_once_and_says_nothing(script: str, code: int) -> None:
    ended = run(script)

    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")


def test_whoever_was_started_to_ignore_it_does() -> None:
    ended = run(f"def main():\n    {SIGNAL}\n    print('done')\n", ignored=True)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_what_else_is_dropped_is_said_as_ever() -> None:
    ended = run("class Bad:\n    def __del__(self):\n        raise KeyError('why')\ndef main():\n    Bad()\n")

    assert ended.returncode == 0
    assert "KeyError: 'why'" in ended.stderr
